//! The bug bank: faults that products of this kind have had, each one line behind a switch, by which the simulator's
//! harness is measured. Without the feature `bugs` nothing of them is compiled in, and with it no release is built.
//!
//! To add one: a line here, and the line where it breaks something.

#[cfg(all(feature = "bugs", not(debug_assertions)))]
compile_error!("the bug bank has no place in a release");

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// Every bug of the bank.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

bugs! {
    /// The mark by which a resend is known is not stored with the effect.
    MarkNotStored = "mark-not-stored";
    /// The answer to a transaction is forgotten before the device has recorded it.
    AnswerForgotten = "answer-forgotten";
    /// Some commits are answered and not kept.
    AnsweredAndLost = "answered-and-lost";
    /// Pushes behind one whose commit failed are committed.
    GoesOnAfterFailedCommit = "goes-on-after-failed-commit";
    /// Tombstones are purged and the horizon stays.
    PurgeWithoutHorizon = "purge-without-horizon";
    /// Stamps from the future are kept.
    FutureStampKept = "future-stamp-kept";
    /// A delete does not beat later edits.
    EditRevivesRow = "edit-revives-row";
    /// The digest is not updated when a row leaves a scope.
    DigestNotMoved = "digest-not-moved";
    /// Each page brings the document changes after its own position only.
    ChangesAfterPosition = "changes-after-position";
    /// A page that may show a push goes out before the answer to it.
    PageBeforeAnswer = "page-before-answer";
    /// A commit that came while a page was read is not read afterwards.
    MissedCommitForgotten = "missed-commit-forgotten";
    /// A session counts updates as heard that still wait for it.
    ToldTooEarly = "told-too-early";
    /// A session hears only of commits in the first of its scopes.
    OneScopeHeard = "one-scope-heard";
    /// Messages for many sessions are cached without regard to their scopes.
    MessageCacheWithoutScopes = "message-cache-without-scopes";
    /// Lanes are kept without regard to the tenant.
    LaneWithoutTenant = "lane-without-tenant";
    /// Rights are checked when a device connects and never again.
    RightsCheckedOnce = "rights-checked-once";
    /// A row's scope is not checked before it is written.
    WriteNotAuthorised = "write-not-authorised";
    /// The cursor moves on and staged rows are dropped.
    CursorBeforeRows = "cursor-before-rows";
    /// What the server sends replaces what is pending.
    PendingNotKept = "pending-not-kept";
    /// The local clock does not follow stamps that were seen.
    ClockNotObserved = "clock-not-observed";
    /// A refused transaction is dropped instead of quarantined.
    RefusalDropped = "refusal-dropped";
    /// A refused transaction goes to the quarantine and its effects stay.
    RefusalNotUndone = "refusal-not-undone";
    /// An answered transaction is taken off its rows before they came back.
    LandsWithItsAnswer = "lands-with-its-answer";
    /// A revoked scope stays on the device.
    ScopeNotPurged = "scope-not-purged";
    /// A new epoch is adopted and nothing is offered.
    NothingOffered = "nothing-offered";
    /// A lost connection is tried again when the app writes, and not before.
    RetryOnWriteOnly = "retry-on-write-only";
    /// A silent connection is never given up.
    SilenceEndured = "silence-endured";
    /// A counter is set to what was added last.
    CounterPlainSet = "counter-plain-set";
    /// The local clock goes back with the wall clock.
    ClockGoesBack = "clock-goes-back";
    /// The first page of a catch-up counts as the whole.
    CheckpointTooEarly = "checkpoint-too-early";
    /// A scope that a row leaves is not told.
    DepartureNotTold = "departure-not-told";
    /// Deletions are not sent.
    DeletionNotSent = "deletion-not-sent";
    /// Pages become visible before the checkpoint that makes them whole.
    StagedPagesShown = "staged-pages-shown";
    /// A scope that is added is not filled from the beginning.
    NewScopeAtCursor = "new-scope-at-cursor";
    /// A snapshot is laid over the copy instead of in its place.
    SnapshotMerged = "snapshot-merged";
    /// A cursor from before the horizon is taken for a good one.
    HorizonNotChecked = "horizon-not-checked";
    /// A cursor of another epoch is taken for a good one.
    EpochNotChecked = "epoch-not-checked";
    /// Tombstones are purged while a device catches up with them.
    PurgeOvertakesCatchUp = "purge-overtakes-catch-up";
    /// A device that was given other scopes says that it has caught up with them.
    OldScopesCaughtUp = "old-scopes-caught-up";
    /// What waits for an answer is offered besides after a restore.
    PendingOffered = "pending-offered";
    /// A device keeps its own stamp of a transaction that the server keeps under another.
    CorrectionNotKept = "correction-not-kept";
    /// Document changes keep their place when their row comes anew.
    ChangesNotResequenced = "changes-not-resequenced";
    /// Changed scopes are not answered.
    ResumeNotSent = "resume-not-sent";
    /// What stands before the refused part of a transaction is kept.
    TransactionInPart = "transaction-in-part";
    /// A page begins one row too late.
    PageSkipsRow = "page-skips-row";
    /// Pushes of one device that share a commit change places.
    JoinedPushesSwapped = "joined-pushes-swapped";
    /// What waits in a revoked scope is dropped instead of quarantined.
    RevokedWritesDropped = "revoked-writes-dropped";
    /// Answers that never came count as recorded.
    SettledTooEarly = "settled-too-early";
    /// Columns that an old app does not know are dropped.
    UnknownColumnsDropped = "unknown-columns-dropped";
    /// A page that was read for rights of before goes out.
    PageOfOldRights = "page-of-old-rights";
}

#[cfg(feature = "bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether a bug is planted in this thread.
#[cfg(feature = "bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether a bug is planted: none ever is.
#[cfg(not(feature = "bugs"))]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Plants a bug in this thread, or takes it out again.
#[cfg(feature = "bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
