//! The promises about locks and sessions, on a NATS server and on a cluster of three.

use tenure_tests::{NatsCluster, NatsServer, promises, promises::Bed};

mod one_server {
    use super::*;
    promises!(async { Bed::on_server(NatsServer::shared().await).await });
}

mod three_servers {
    use super::*;
    promises!(async { Bed::on_cluster(NatsCluster::shared().await).await });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_killed_and_restarted() {
    promises::a_server_is_killed_and_restarted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_loses_its_leaders() {
    promises::a_cluster_loses_its_leaders().await;
}
