//! A node that is gone while its pod runs on: nobody else writes until its death is certain, or a person vouches for it. A witness outside
//! of the service and the cluster sees who works on the target.

use std::path::Path;
use std::time::Duration;

use e2e::{Lab, Witness};
use serde_json::{Value, json};

use crate::stage::{Stage, attempt};

#[test]
fn a_node_that_is_gone_with_its_pod_running_keeps_its_target_until_it_is_known_to_be_dead() {
    let watching = Lab::new();
    let witness = Witness::new(watching.dir());
    let actor = Path::new(env!("CARGO_BIN_EXE_actor-in-a-pod"));
    let mut stage =
        Stage::with(&["n1"], actor, json!({"kubernetes": {"args": ["--witness", witness.path(), "--frozen"]}}));
    for fate in ["thawed", "vouched for"] {
        let (_target, mut order) = stage.order("n1");
        order["max_attempts"] = 3.into();
        let run = stage.create(&order);
        stage.service.until(&run, &["running"], 30);
        let pod = stage.pod(&run, 1);
        stage.nodes[0].freeze();
        // The lease ends, the Job is deleted, also by force: the pod's death is still not known.
        stage.service.until(&run, &["lost"], 60);
        stage.kubectl(&format!("delete pod {pod} --force --grace-period=0 --wait=false"));
        let shown = stage.until_said(&run, "has not said yet that the containers of its pod");
        assert_eq!((&shown["state"], &shown["waits"]["for"]), (&"lost".into(), &"death".into()), "{shown:#}");
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(stage.service.show(&run)["attempts"].as_array().unwrap().len(), 1);
        if fate == "thawed" {
            stage.nodes[0].thaw();
        } else {
            stage.nodes[0].kill_machine();
            stage.service.client("confirm-death --yes --attempt 1").arg(&run).done().ok();
            stage.nodes[0].start_agent();
        }
        let next = stage.until(&run, "tried again", |shown| shown["attempts"].as_array().unwrap().len() > 1);
        assert_eq!(attempt(&next, 1)["outcome"], "lost");
        // It may have done its work by now: then there is nothing to cancel.
        drop(stage.service.client("cancel").arg(&run).done());
        stage.until(&run, "over", |shown: &Value| !shown["ended"].is_null());
        witness.saw_no_two();
    }
    assert!(witness.holds() >= 2);
}
