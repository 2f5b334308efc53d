//! Errors as problem documents. The only place that maps them: a domain error has one status and one code.
//!
//! What a caller reads and what the log holds are two texts: a failure of the server itself says nothing about its
//! cause to the caller.

use axum::extract::rejection::{BytesRejection, JsonRejection, StringRejection};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use farshore_api::problem::{ErrorCode, PROBLEM_CONTENT_TYPE, Problem};
use farshore_sync_core::schema::SchemaError;
use farshore_sync_core::wire::SUBPROTOCOL;

use crate::app::archives::RestoreError;
use crate::app::connections::AdmissionError;
use crate::app::devices::DeviceError;
use crate::app::error::AccessError;
use crate::app::health::NotReady;
use crate::app::integrity::DigestError;
use crate::app::keys::RotateError;
use crate::app::placement::PlacementError;
use crate::app::schemas::{ApplyError, ShowError};
use crate::app::tenants::CreateTenantError;
use crate::app::tokens::MintError;
use crate::auth::{AuthError, KeyError};

/// When a client that was turned away comes back, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// An error as it goes out.
#[derive(Debug)]
pub struct HttpError {
    status: StatusCode,
    code: ErrorCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl HttpError {
    fn new(status: StatusCode, code: ErrorCode, detail: impl ToString) -> Self {
        Self { status, code, detail: detail.to_string(), header: None }
    }

    fn with(self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    fn retry_later(status: StatusCode, code: ErrorCode, detail: impl ToString) -> Self {
        Self::new(status, code, detail).with(RETRY_AFTER, RETRY_AFTER_S)
    }

    /// The server failed; why is for its log alone.
    fn internal(cause: &dyn std::error::Error) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            "the server's log says why",
        )
    }

    /// A panic in a handler; the panic hook has logged it.
    #[must_use]
    pub fn panicked() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            "the server's log says why",
        )
    }

    /// Something cannot be read.
    #[must_use]
    pub fn invalid_request(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidRequest, detail)
    }

    /// A value is outside its limits.
    fn out_of_range(detail: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::OutOfRange, detail)
    }

    /// Nothing is there, or nothing that the caller may see.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            "nothing is there, or nothing that you may see",
        )
    }

    /// The handler did not answer in time.
    #[must_use]
    pub fn timeout() -> Self {
        let detail = "the server did not answer within its own deadline";
        Self::retry_later(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Timeout, detail)
    }

    /// The body is not said to be JSON.
    #[must_use]
    pub fn not_json() -> Self {
        let detail = "the content type must be application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::UnsupportedMediaType, detail)
    }

    /// The request is no handshake for the sync protocol.
    #[must_use]
    pub fn upgrade_required() -> Self {
        let detail = format!("open a WebSocket with the subprotocol {SUBPROTOCOL}");
        Self::new(StatusCode::UPGRADE_REQUIRED, ErrorCode::UpgradeRequired, detail)
            .with(UPGRADE, HeaderValue::from_static("websocket"))
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let problem = Problem::new(self.status.as_u16(), self.code, self.detail);
        let body = serde_json::to_string(&problem).expect("a problem has string keys only");
        let mut response =
            (self.status, [(CONTENT_TYPE, PROBLEM_CONTENT_TYPE)], body).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The answer to a path that leads nowhere.
pub async fn no_such_path(uri: Uri) -> HttpError {
    tracing::trace!(bytes = uri.path().len(), "no such path");
    HttpError::not_found()
}

/// The answer to a method that a path does not have.
pub async fn no_such_method(method: Method) -> HttpError {
    let detail = format!("this path does not know {method}");
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, detail)
}

impl From<AuthError> for HttpError {
    fn from(error: AuthError) -> Self {
        let challenge = |code, detail: &str| {
            Self::new(StatusCode::UNAUTHORIZED, code, detail)
                .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        };
        match error {
            AuthError::Missing => challenge(ErrorCode::Unauthenticated, "a bearer token is needed"),
            AuthError::Expired => challenge(ErrorCode::TokenExpired, "the token has expired"),
            AuthError::Suspended => Self::new(
                StatusCode::FORBIDDEN,
                ErrorCode::DeviceSuspended,
                "the device is suspended",
            ),
            AuthError::TooLong
            | AuthError::Malformed
            | AuthError::UnknownKey
            | AuthError::WrongAlgorithm
            | AuthError::BadSignature
            | AuthError::WrongIssuer
            | AuthError::WrongAudience
            | AuthError::WrongTenant
            | AuthError::NotYetValid
            | AuthError::UnknownDevice
            | AuthError::WrongUser => {
                // The reason helps whoever runs the server, and whoever tries tokens out.
                tracing::info!(reason = %error, "a token was refused");
                challenge(ErrorCode::Unauthenticated, "the token is not good")
            }
            AuthError::Store(_) | AuthError::Key(_) => Self::internal(&error),
        }
    }
}

impl From<KeyError> for HttpError {
    fn from(error: KeyError) -> Self {
        Self::internal(&error)
    }
}

impl From<AccessError> for HttpError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::UnknownTenant { .. } => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::TenantNotFound, error)
            }
            AccessError::Erased { .. } => {
                Self::new(StatusCode::GONE, ErrorCode::TenantErased, error)
            }
            AccessError::DiskFull => {
                tracing::error!("the disk is full");
                Self::retry_later(StatusCode::INSUFFICIENT_STORAGE, ErrorCode::DiskFull, error)
            }
            AccessError::Moving => {
                Self::retry_later(StatusCode::CONFLICT, ErrorCode::TenantMoving, error)
            }
            AccessError::Failed(_) => Self::internal(&error),
        }
    }
}

impl From<CreateTenantError> for HttpError {
    fn from(error: CreateTenantError) -> Self {
        match error {
            CreateTenantError::Exists { .. } => {
                Self::new(StatusCode::CONFLICT, ErrorCode::TenantExists, error)
            }
            CreateTenantError::Key(error) => error.into(),
            CreateTenantError::Placement(error) => error.into(),
            CreateTenantError::Access(error) => error.into(),
        }
    }
}

impl From<DeviceError> for HttpError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Unknown { .. } => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::DeviceNotFound, error)
            }
            DeviceError::TooManyScopes { .. } => Self::out_of_range(error),
            DeviceError::Access(error) => error.into(),
        }
    }
}

impl From<MintError> for HttpError {
    fn from(error: MintError) -> Self {
        match error {
            MintError::NoScope
            | MintError::TooManyScopes { .. }
            | MintError::TooLong { .. }
            | MintError::Lifetime { .. }
            | MintError::NameTooLong => Self::out_of_range(error),
            MintError::OtherUser { .. } => {
                Self::new(StatusCode::CONFLICT, ErrorCode::DeviceOfAnotherUser, error)
            }
            MintError::Suspended { .. } => {
                Self::new(StatusCode::FORBIDDEN, ErrorCode::DeviceSuspended, error)
            }
            MintError::Key(error) => error.into(),
            MintError::Access(error) => error.into(),
        }
    }
}

impl From<RotateError> for HttpError {
    fn from(error: RotateError) -> Self {
        match error {
            RotateError::Key(error) => error.into(),
            RotateError::Access(error) => error.into(),
        }
    }
}

impl From<ApplyError> for HttpError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(SchemaError::TooLong { .. }) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::PayloadTooLarge, error)
            }
            ApplyError::Refused(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::SchemaRefused, error)
            }
            ApplyError::Access(error) => error.into(),
        }
    }
}

impl From<ShowError> for HttpError {
    fn from(error: ShowError) -> Self {
        match error {
            ShowError::None { .. } => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::SchemaNotFound, error)
            }
            ShowError::Access(error) => error.into(),
        }
    }
}

impl From<RestoreError> for HttpError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Archive(_) | RestoreError::OtherTenant { .. } | RestoreError::Copy(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::ArchiveRefused, error)
            }
            RestoreError::Exists { .. } => {
                Self::new(StatusCode::CONFLICT, ErrorCode::TenantExists, error)
            }
            RestoreError::Stalled => {
                Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::Timeout, error)
            }
            RestoreError::Entropy(error) => error.into(),
            RestoreError::Access(error) => error.into(),
        }
    }
}

impl From<PlacementError> for HttpError {
    fn from(error: PlacementError) -> Self {
        let (status, code) = match error {
            PlacementError::Name(_) => return Self::out_of_range(error),
            PlacementError::Access(error) => return error.into(),
            PlacementError::Stopped => return Self::timeout(),
            PlacementError::NoClusters | PlacementError::Add(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::ClusterRefused)
            }
            PlacementError::UnknownCluster(_) => {
                (StatusCode::NOT_FOUND, ErrorCode::ClusterNotFound)
            }
            PlacementError::ClusterInUse(_) => (StatusCode::CONFLICT, ErrorCode::ClusterRefused),
            PlacementError::Overtaken(_) | PlacementError::Move(_) => {
                (StatusCode::CONFLICT, ErrorCode::MoveRefused)
            }
        };
        Self::new(status, code, error)
    }
}

impl From<DigestError> for HttpError {
    fn from(error: DigestError) -> Self {
        match error {
            DigestError::TooManyScopes { .. } => Self::out_of_range(error),
            DigestError::Access(error) => error.into(),
        }
    }
}

impl From<AdmissionError> for HttpError {
    fn from(error: AdmissionError) -> Self {
        let code = match error {
            AdmissionError::ServerFull | AdmissionError::TenantFull => ErrorCode::Overloaded,
            AdmissionError::ShuttingDown => ErrorCode::ShuttingDown,
        };
        Self::retry_later(StatusCode::SERVICE_UNAVAILABLE, code, error)
    }
}

impl From<NotReady> for HttpError {
    fn from(error: NotReady) -> Self {
        tracing::warn!(cause = %error, "not ready");
        let detail = match error {
            NotReady::ShuttingDown => "the server is shutting down",
            NotReady::Store(_) => "the store does not answer; the server's log says why",
        };
        Self::retry_later(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::NotReady, detail)
    }
}

impl From<JsonRejection> for HttpError {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::MissingJsonContentType(_) => Self::not_json(),
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            rejection => Self::invalid_request(rejection.body_text()),
        }
    }
}

impl From<BytesRejection> for HttpError {
    fn from(rejection: BytesRejection) -> Self {
        Self::unread_body(rejection.status(), &rejection.body_text())
    }
}

impl From<StringRejection> for HttpError {
    fn from(rejection: StringRejection) -> Self {
        Self::unread_body(rejection.status(), &rejection.body_text())
    }
}

impl HttpError {
    fn unread_body(status: StatusCode, text: &str) -> Self {
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = "the body is longer than server.max_body_bytes allows";
            return Self::new(status, ErrorCode::PayloadTooLarge, detail);
        }
        Self::invalid_request(text)
    }
}
