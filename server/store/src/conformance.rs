//! What every back-end must do, as tests.
//!
//! A back-end says how it is opened ([`Storage`]) and gets one test for each case by one line:
//! `farshore_store::conformance_suite!(MyStorage::new());`, in a crate with tokio's `macros` and `rt`.
//! What is decided by the plan alone is tested there; here is what a database could get wrong.

#![expect(clippy::missing_panics_doc, reason = "a case that does not hold panics")]
#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped does not hold")]

use std::sync::Arc;

use async_trait::async_trait;

use crate::catalog::Catalog;
use crate::scope::ScopeAuthority;

pub mod commits;
pub mod copies;
pub mod devices;
pub mod digests;
pub mod documents;
pub mod freezing;
pub mod pages;
pub mod purges;
pub mod reopening;
pub mod resends;
pub mod schemas;
pub mod scopes;
pub mod signing_keys;
pub mod tenants;

mod fixture;
mod reader;
mod sample;

pub use fixture::{
    commit_notes, note_batch, sample_store_of, sample_tenant, sample_tenant_named, titled_batch,
};

/// Where a back-end under test keeps its data. Each case gets one of its own.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Opens the platform. Called again, it opens what was there, as after a restart.
    async fn open(&self) -> (Arc<dyn Catalog>, ScopeAuthority);
}

/// Runs every case on a back-end: one test each. The argument makes a new [`conformance::Storage`](Storage).
#[macro_export]
macro_rules! conformance_suite {
    ($storage:expr) => {
        $crate::conformance_suite! { @tests $storage;
            tenants {
                a_created_tenant_opens,
                an_unknown_tenant_does_not_open,
                a_tenant_is_created_once,
                an_erased_tenant_is_gone_for_good,
                tenants_never_see_each_other,
            }
            schemas {
                a_tenant_begins_without_a_schema,
                a_new_version_replaces_the_last_one,
                the_same_version_again_changes_nothing,
                what_breaks_the_last_version_is_refused,
            }
            devices {
                a_device_is_read_as_it_was_written,
                a_device_is_replaced,
                devices_are_listed_by_id,
            }
            signing_keys {
                a_tenant_begins_without_keys,
                rotation_retires_the_earlier_key,
            }
            commits {
                a_commit_without_a_schema_is_refused,
                an_insert_is_read_back,
                every_kind_of_mutation_is_kept,
                the_seq_rises_without_gaps,
                a_deleted_row_comes_back_with_its_values,
                a_refused_transaction_leaves_the_others,
                devices_commit_together,
                a_late_write_does_not_win,
                a_clock_far_ahead_is_corrected,
            }
            resends {
                a_resend_is_answered_and_not_applied_again,
                a_resend_beside_new_work_applies_the_new_work,
                other_content_under_a_number_is_a_fork,
                recorded_answers_are_forgotten_but_the_newest,
            }
            pages {
                an_empty_tenant_has_an_empty_complete_page,
                only_what_changed_after_the_cursor_comes,
                a_page_ends_at_its_rows,
                a_page_ends_at_its_bytes,
                a_page_that_ends_exactly_is_complete,
                a_page_over_several_scopes_stops_within_one,
                a_deleted_row_comes_as_a_tombstone,
                any_cursor_and_the_rest_is_everything,
            }
            scopes {
                a_row_that_moves_departs,
                a_row_that_comes_back_does_not_depart,
                a_row_leaves_the_same_scope_twice,
                unread_scopes_do_not_show,
            }
            documents {
                changes_come_with_their_row,
                only_changes_after_the_cursor_come,
                a_row_that_moved_to_a_later_page_brings_its_changes,
                a_change_twice_is_kept_once,
                a_deleted_row_takes_a_change_that_it_has,
                a_missing_dependency_is_named,
                all_changes_come_to_the_scope_that_a_row_enters,
                all_changes_come_with_a_row_that_is_restored,
            }
            digests {
                totals_follow_every_write,
                sums_equal_a_recount,
                buckets_name_their_rows,
                a_moved_row_counts_where_it_is,
                the_digest_key_stays,
            }
            purges {
                a_purge_moves_the_horizon,
                a_purge_leaves_what_is_young_or_alive,
                a_purged_row_can_be_inserted_anew,
                a_purged_row_departs_anew,
                an_epoch_is_new_and_never_zero,
                a_push_of_another_epoch_is_not_committed,
            }
            copies {
                a_copy_holds_everything,
                a_copy_takes_the_place_of_a_tenant,
                an_unfinished_copy_leaves_nothing,
                a_copy_arrives_only_where_it_may,
                an_altered_copy_is_noticed,
                the_last_of_two_copies_counts,
                a_copy_is_brought_up_to_date,
                a_copy_that_is_not_up_to_date_is_noticed,
            }
            freezing {
                a_frozen_tenant_takes_no_writes,
                only_the_last_mover_thaws,
            }
            reopening {
                everything_is_there_after_a_restart,
                a_second_handle_sees_the_commits_of_the_first,
            }
        }
    };
    (@tests $storage:expr; $($theme:ident { $($case:ident,)+ })+) => {
        $(
            mod $theme {
                use super::*;
                $(
                    #[tokio::test]
                    async fn $case() {
                        $crate::conformance::$theme::$case(&$storage).await;
                    }
                )+
            }
        )+
    };
}
