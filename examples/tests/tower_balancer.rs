//! The tower balancer example as a program.

#![allow(clippy::unwrap_used)]

mod support;

#[test]
fn requests_follow_the_group() {
    let output = support::example("tower_balancer").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(r#"anna joins:  {"anna": 100}"#) && said.contains(r#"anna drains: {"bert": 100}"#), "{said}");
}
