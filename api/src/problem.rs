//! Errors as RFC 9457 problem documents. Programs decide by [`ErrorCode`]; the sentences are for people.

use serde::{Deserialize, Serialize};

/// The content type of a problem document.
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, as the body of every response whose status is 400 or higher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A name for this kind of problem: [`ErrorCode::problem_type`].
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The same for every problem of this kind.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What is the matter this time, in one sentence.
    pub detail: String,
    /// What programs decide by.
    pub code: ErrorCode,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $title:literal;)*) => {
        /// The stable code of a problem. A code is never given another meaning; new ones may come.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
            /// A code that this build does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code that a server sends.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word that programs compare.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* Self::Unknown => "unknown" }
            }

            /// What problems of this kind are called.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* Self::Unknown => "A problem that this build does not know" }
            }
        }
    };
}

error_codes! {
    /// The request cannot be read.
    InvalidRequest, "invalid_request", "The request cannot be read";
    /// The token is missing, damaged or not for this.
    Unauthenticated, "unauthenticated", "The caller is not signed in";
    /// The token was good and has expired.
    TokenExpired, "token_expired", "The token has expired";
    /// The device may not sync for now.
    DeviceSuspended, "device_suspended", "The device is suspended";
    /// Nothing is there, or nothing that the caller may see.
    NotFound, "not_found", "There is nothing here";
    /// There is no such tenant.
    TenantNotFound, "tenant_not_found", "There is no such tenant";
    /// The tenant has no such device.
    DeviceNotFound, "device_not_found", "There is no such device";
    /// The tenant has no schema yet.
    SchemaNotFound, "schema_not_found", "There is no schema yet";
    /// There is a tenant of this name already.
    TenantExists, "tenant_exists", "The tenant exists already";
    /// The tenant was erased; its name is not given again.
    TenantErased, "tenant_erased", "The tenant was erased";
    /// The device belongs to another user.
    DeviceOfAnotherUser, "device_of_another_user", "The device belongs to another user";
    /// The schema is not well-formed, or changes what an earlier version promised.
    SchemaRefused, "schema_refused", "The schema is refused";
    /// The archive cannot be read, is another tenant's, or does not add up.
    ArchiveRefused, "archive_refused", "The archive is refused";
    /// There is no such cluster.
    ClusterNotFound, "cluster_not_found", "There is no such cluster";
    /// The cluster cannot be used, or may not be removed.
    ClusterRefused, "cluster_refused", "The cluster is refused";
    /// The tenant is not moved; it is where it was.
    MoveRefused, "move_refused", "The tenant is not moved";
    /// The tenant is being moved and takes no writes until that is done.
    TenantMoving, "tenant_moving", "The tenant is being moved";
    /// A value in the request is outside its limits.
    OutOfRange, "out_of_range", "A value is outside its limits";
    /// The path is known, the method is not.
    MethodNotAllowed, "method_not_allowed", "The method is not allowed here";
    /// The body is too long.
    PayloadTooLarge, "payload_too_large", "The body is too long";
    /// The body is not JSON.
    UnsupportedMediaType, "unsupported_media_type", "The body must be JSON";
    /// The request must be a WebSocket handshake with the subprotocol `farshore.sync.v1`.
    UpgradeRequired, "upgrade_required", "This is a WebSocket";
    /// The server has as many connections as it takes.
    Overloaded, "overloaded", "The server is full";
    /// The server is shutting down.
    ShuttingDown, "shutting_down", "The server is shutting down";
    /// The server did not answer within its own deadline.
    Timeout, "timeout", "The request took too long";
    /// The server's disk is full.
    DiskFull, "disk_full", "The server's disk is full";
    /// The server is not ready to serve.
    NotReady, "not_ready", "The server is not ready";
    /// The server failed; its log says why.
    Internal, "internal", "The server failed";
}

impl ErrorCode {
    /// The name of the kind of problem, as `type` wants it.
    #[must_use]
    pub fn problem_type(self) -> String {
        format!("urn:farshore:problem:{}", self.as_str())
    }
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(status: u16, code: ErrorCode, detail: impl Into<String>) -> Self {
        let title = code.title().to_owned();
        Self { problem_type: code.problem_type(), title, status, detail: detail.into(), code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_the_document_of_the_standard() {
        let problem = Problem::new(404, ErrorCode::TenantNotFound, "there is no tenant acme");
        let json = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            json,
            "{\"type\":\"urn:farshore:problem:tenant_not_found\",\"title\":\"There is no such tenant\",\
             \"status\":404,\"detail\":\"there is no tenant acme\",\"code\":\"tenant_not_found\"}"
        );
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
    }

    #[test]
    fn a_code_of_a_newer_server_is_read_as_unknown() {
        assert_eq!(serde_json::from_str::<ErrorCode>("\"sold_out\"").unwrap(), ErrorCode::Unknown);
    }

    #[test]
    fn codes_are_what_serde_writes() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("{:?}", code.as_str()));
        }
    }
}
