use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_800_000_000_000 + millis)
}

fn first(id: &str, written: i64) -> Offered {
    Offered { id: id.into(), restarts: None, written: at(written), sdp: format!("sdp of {id}") }
}

fn restart(id: &str, of: &str) -> Offered {
    Offered { restarts: Some(of.into()), ..first(id, 0) }
}

fn candidate(text: &str) -> IceCandidate {
    IceCandidate { candidate: text.into(), ..IceCandidate::default() }
}

/// We have offered "ours" at 0 and wait.
fn offering(gives_way: bool) -> Negotiation {
    let mut negotiation = Negotiation::new(gives_way);
    negotiation.begin_ours("ours".into(), at(0));
    negotiation
}

/// The connection "ours" stands.
fn connected(gives_way: bool) -> Negotiation {
    let mut negotiation = offering(gives_way);
    assert!(negotiation.answered(Some("ours")));
    assert!(negotiation.described().is_empty());
    negotiation
}

#[test]
fn an_answer_counts_once_and_for_the_offer_that_waits() {
    let mut negotiation = offering(false);
    assert!(!negotiation.answered(None));
    assert!(!negotiation.answered(Some("another")));
    assert!(negotiation.answered(Some("ours")));
    assert!(!negotiation.answered(Some("ours")));
    assert!(negotiation.is_initiator());
    assert!(!Negotiation::new(true).answered(None));
}

#[test]
fn the_smaller_key_gives_way_when_both_offer() {
    let mut smaller = offering(true);
    assert_eq!(smaller.offered(first("theirs", -5)), OnOffer::Begin(first("theirs", -5)));
    assert_eq!(smaller.connection(), Some("theirs"));
    assert!(!smaller.is_initiator());
    assert!(!smaller.answered(Some("ours")), "what was given up is not answered any more");
    assert_eq!(smaller.candidate(Some("ours"), candidate("late")), None);

    let mut greater = offering(false);
    assert_eq!(greater.offered(first("theirs", -5)), OnOffer::Ignore);
    assert_eq!(greater.connection(), Some("ours"));
    assert!(greater.answered(Some("ours")));
    assert_eq!(greater.refused(Some("ours")), OnRefusal::Refused, "theirs was forgotten");
}

#[test]
fn theirs_is_answered_with_its_candidates_when_ours_is_refused() {
    let mut greater = offering(false);
    greater.offered(first("theirs", 0));
    assert_eq!(greater.candidate(Some("theirs"), candidate("a")), None);
    assert_eq!(greater.candidate(Some("theirs"), candidate("b")), None);
    assert_eq!(greater.refused(Some("ours")), OnRefusal::Begin(first("theirs", 0)));
    assert_eq!(greater.candidate(Some("theirs"), candidate("c")), None);
    let waited = greater.answered_theirs("answer".into());
    assert_eq!(waited, ["a", "b", "c"].map(candidate));
    assert_eq!(greater.candidate(Some("theirs"), candidate("d")), Some(candidate("d")));
}

#[test]
fn a_first_offer_takes_the_place_of_a_connection_unless_it_is_older() {
    let mut negotiation = connected(false);
    assert!(!negotiation.is_newer(at(-1)));
    assert_eq!(negotiation.offered(first("old", -1)), OnOffer::Ignore);
    assert_eq!(negotiation.connection(), Some("ours"));
    assert!(negotiation.is_newer(at(0)));
    assert_eq!(negotiation.offered(first("new", 0)), OnOffer::Begin(first("new", 0)));
    negotiation.answered_theirs("answer".into());
    assert_eq!(negotiation.offered(first("older", -1)), OnOffer::Ignore);
}

#[test]
fn a_first_offer_goes_before_a_restart_of_ours() {
    for gives_way in [true, false] {
        let mut negotiation = connected(gives_way);
        negotiation.restart_ours("again".into());
        assert!(!negotiation.is_offering(), "that is for first ones");
        assert_eq!(negotiation.offered(first("new", 1)), OnOffer::Begin(first("new", 1)));
        assert!(!negotiation.answered(Some("again")));
    }
}

#[test]
fn restarts_that_cross_are_settled_by_the_keys() {
    let mut smaller = connected(true);
    smaller.restart_ours("again".into());
    let theirs = restart("theirs", "ours");
    let takes = OnOffer::Restart { offer: theirs.clone(), rollback: true };
    assert_eq!(smaller.offered(theirs.clone()), takes);
    assert!(!smaller.answered(Some("again")));

    let mut greater = connected(false);
    greater.restart_ours("again".into());
    assert_eq!(greater.offered(theirs.clone()), OnOffer::Ignore);
    assert!(greater.answered(Some("again")));
    let takes = OnOffer::Restart { offer: theirs.clone(), rollback: false };
    assert_eq!(greater.offered(theirs), takes, "they no longer cross");
}

#[test]
fn a_restart_of_what_is_not_known_is_refused() {
    let unknown = OnOffer::Unknown("again".into());
    assert_eq!(Negotiation::new(true).offered(restart("again", "x")), unknown);
    assert_eq!(connected(true).offered(restart("again", "x")), unknown);
    assert_eq!(offering(true).offered(restart("again", "ours")), unknown);
}

#[test]
fn candidates_wait_for_their_description_and_are_bounded() {
    let mut negotiation = offering(true);
    for number in 0..300 {
        assert_eq!(negotiation.candidate(Some("ours"), candidate(&number.to_string())), None);
    }
    assert!(negotiation.answered(Some("ours")));
    let waited = negotiation.described();
    assert_eq!(waited.len(), MAX_CANDIDATES);
    assert_eq!(waited[0], candidate("0"));
    assert_eq!(negotiation.candidate(Some("ours"), candidate("one more")), None);

    // A restart may bring as many.
    negotiation.restart_ours("again".into());
    assert!(negotiation.answered(Some("again")));
    assert_eq!(negotiation.candidate(Some("ours"), candidate("early")), None);
    assert_eq!(negotiation.described(), [candidate("early")]);
    assert_eq!(negotiation.candidate(Some("ours"), candidate("x")), Some(candidate("x")));
}

#[test]
fn candidates_of_other_connections_are_ignored_and_nameless_ones_are_not() {
    assert_eq!(Negotiation::new(true).candidate(None, candidate("a")), None);
    let mut negotiation = connected(true);
    assert_eq!(negotiation.candidate(Some("another"), candidate("a")), None);
    assert_eq!(negotiation.candidate(None, candidate("b")), Some(candidate("b")));
    assert_eq!(negotiation.candidate(None, candidate("")), Some(candidate("")));
}

#[test]
fn an_error_counts_for_the_offer_the_answer_and_the_connection() {
    assert_eq!(Negotiation::new(true).refused(None), OnRefusal::Ignore);
    let mut negotiation = offering(true);
    assert_eq!(negotiation.refused(Some("another")), OnRefusal::Ignore);
    assert_eq!(negotiation.refused(None), OnRefusal::Ignore);
    assert_eq!(negotiation.refused(Some("ours")), OnRefusal::Refused);
    assert!(!negotiation.answered(Some("ours")), "it is over");

    let mut answerer = Negotiation::new(true);
    assert!(matches!(answerer.offered(first("theirs", 0)), OnOffer::Begin(_)));
    answerer.answered_theirs("answer".into());
    assert_eq!(answerer.refused(Some("answer")), OnRefusal::Refused);

    let mut restarting = connected(false);
    restarting.restart_ours("again".into());
    assert_eq!(restarting.refused(Some("again")), OnRefusal::Refused);
    assert_eq!(restarting.refused(Some("again")), OnRefusal::Ignore);
}
