//! Two tenants on one server: neither sees a byte of the other.

use farshore_api::envelope;
use farshore_sync_core::digest::Sum;
use farshore_sync_core::wire::{BucketListing, ClientFrame, ServerFrame};
use system_tests::fleet::{
    FIRST, ITEMS, SECOND, TALLIES, count_in, count_up, delete, fresh_row, insert_item,
    insert_tally, relabel_item, text_in,
};
use system_tests::server::{Server, ServerOptions, TENANT};
use system_tests::wire::{WireClient, first_hello};

const OTHER: &str = "umbrella";
/// What only the other tenant's rows hold.
const CANARY: &str = "canary-7f1d2c";

fn two_tenants() -> Server {
    let server = Server::start(ServerOptions::default());
    server.create_tenant(OTHER);
    server
}

/// Whether a canary is in anything that a device heard.
fn heard_canary(device: &WireClient) -> bool {
    device.heard.iter().any(|message| {
        let frame = envelope::open(message).unwrap();
        frame.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    })
}

#[test]
fn a_token_opens_the_door_of_its_own_tenant_only() {
    let server = two_tenants();
    let ours = server.token(&["tenant:rw"]).token;
    let status = |path: &str, token: &str| {
        WireClient::connect_at(server.address(), path, token).err().map(|r| r.status)
    };
    assert_eq!(status("/t/acme/v1/sync", &ours), None);
    assert_eq!(status("/t/umbrella/v1/sync", &ours), Some(404));
    assert_eq!(
        status("/t/nowhere/v1/sync", &ours),
        Some(404),
        "the same as a tenant that does not exist"
    );
    assert_eq!(status("/v1/sync", "no token"), Some(401));

    let device = server.token(&["tenant"]).device.to_string();
    let finished = server.try_operate(&["device", "suspend", "--tenant", OTHER, &device]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("device_not_found"), "{}", finished.stderr);
}

#[test]
fn a_device_token_opens_nothing_of_the_operators() {
    let server = two_tenants();
    let token = server.token(&["tenant:rw"]).token;
    for path in
        ["/v1/admin/tenants", "/v1/admin/tenants/acme/devices", "/v1/admin/tenants/acme/schema"]
    {
        let refused = WireClient::connect_at(server.address(), path, &token).unwrap_err();
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
        assert_eq!(server.get(path).unwrap().0, 401, "{path} without a token");
    }
}

#[test]
fn ids_of_another_tenant_lead_nowhere() {
    let server = two_tenants();
    let connect = |tenant: &str| {
        let token = server.mint(tenant, &["tenant:rw"], &[]).token;
        let mut device = WireClient::connect(server.address(), &token).unwrap();
        device.catch_up(first_hello());
        device
    };
    let (mut ours, mut theirs) = (connect(TENANT), connect(OTHER));
    let (item, tally) = (fresh_row(), fresh_row());
    theirs.commit(
        1,
        vec![insert_item(item, CANARY, 1), insert_tally(tally, CANARY), count_up(tally, 4)],
    );
    for (number, mutation) in
        (1..).zip([relabel_item(item, "ours now"), count_up(tally, 1), delete(ITEMS, item)])
    {
        ours.push(number, vec![mutation]);
        assert_eq!(ours.outcome_of(number).refused.unwrap().code.as_str(), "row_missing");
    }
    // The same id in our tenant is another row.
    ours.commit(4, vec![insert_item(item, "ours", 1)]);
    ours.commit(5, vec![delete(ITEMS, item)]);

    let seen = connect_fresh(&server, OTHER);
    assert_eq!(text_in(&seen.1.state(ITEMS, item).unwrap(), FIRST).as_deref(), Some(CANARY));
    assert_eq!(count_in(&seen.1.state(TALLIES, tally).unwrap(), SECOND), 4);
}

fn connect_fresh(server: &Server, tenant: &str) -> (WireClient, system_tests::wire::CaughtUp) {
    let token = server.mint(tenant, &["tenant"], &[]).token;
    let mut device = WireClient::connect(server.address(), &token).unwrap();
    let caught_up = device.catch_up(first_hello());
    (device, caught_up)
}

#[test]
fn no_frame_of_a_tenant_holds_a_byte_of_another() {
    let server = two_tenants();
    let connect = |tenant: &str| {
        let token = server.mint(tenant, &["tenant:rw", "site/1:rw"], &[]).token;
        let mut device = WireClient::connect(server.address(), &token).unwrap();
        device.catch_up(first_hello());
        device
    };
    let (mut ours, mut theirs) = (connect(TENANT), connect(OTHER));
    let rows: Vec<_> = (0..200).map(|_| fresh_row()).collect();
    for (number, row) in (1..).zip(&rows) {
        theirs.commit(number, vec![insert_item(*row, &format!("{CANARY} {number}"), 1)]);
        ours.commit(number, vec![insert_item(fresh_row(), "ours", 1)]);
    }
    assert!(heard_canary(&theirs), "the canary can be heard at all");

    // Everything that a device can ask for: catch-up, totals, buckets, pings.
    let (mut fresh, _) = connect_fresh(&server, TENANT);
    let scope = || "tenant".parse().unwrap();
    fresh.send(&ClientFrame::Compare(vec![(scope(), ITEMS, Sum(9))]));
    fresh.receive_until("sums", |frame| matches!(frame, ServerFrame::Sums(_)).then_some(()));
    for bucket in 0..=u8::MAX {
        let listing =
            BucketListing { scope: scope(), collection: ITEMS, bucket, hashes: Vec::new().into() };
        fresh.send(&ClientFrame::Buckets(vec![listing]));
        fresh.receive_until("rows", |frame| matches!(frame, ServerFrame::Repair(_)).then_some(()));
    }
    fresh.send(&ClientFrame::Ping(1));
    fresh.receive_until("a pong", |frame| matches!(frame, ServerFrame::Pong(1)).then_some(()));
    ours.send(&ClientFrame::Ping(2));
    ours.receive_until("a pong", |frame| matches!(frame, ServerFrame::Pong(2)).then_some(()));
    assert!(fresh.heard.len() > 256);
    assert!(!heard_canary(&fresh) && !heard_canary(&ours), "a foreign row came through");

    for path in ["/metrics", "/readyz", "/t/acme/.well-known/jwks.json"] {
        assert!(!server.get(path).unwrap().1.contains(CANARY), "{path}");
    }
    assert!(!server.log().contains(CANARY), "rows are nobody's business in the log");
}
