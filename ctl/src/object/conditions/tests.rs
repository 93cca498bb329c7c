use serde_json::json;

use super::*;

fn policy(conditions: Value) -> Value {
    json!({ "metadata": { "generation": 2 }, "status": { "conditions": conditions } })
}

#[test]
fn what_does_not_hold_is_shown_before_what_does() {
    let accepted =
        json!({ "type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": 2 });
    let enforced =
        json!({ "type": "Enforced", "status": "True", "reason": "Enforced", "observedGeneration": 2 });
    let closes =
        json!({ "type": "Enforced", "status": "False", "reason": "NeedsHttp", "observedGeneration": 2 });
    assert_eq!(shown(&policy(json!([]))), "-");
    assert_eq!(shown(&policy(json!([accepted, enforced]))), "Enforced");
    assert_eq!(
        shown(&policy(json!([accepted, closes]))),
        "not Enforced: NeedsHttp"
    );
    assert_eq!(unmet(&policy(json!([accepted, enforced]))), []);
}

#[test]
fn conditions_of_an_earlier_generation_are_not_current() {
    let of = |generation: i64| {
        policy(json!([{ "type": "Accepted", "status": "True", "observedGeneration": generation }]))
    };
    assert!(are_current(&of(2)));
    assert!(!are_current(&of(1)));
    assert!(!are_current(&policy(json!([]))));
}
