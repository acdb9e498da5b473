//! The servers that a component reaches over HTTP, and those that it does not.

use std::net::SocketAddr;

use greentic_worker::adapters::wasm::Network;
use tokio::net::TcpListener;

use super::imports::{HTTP, PAGE, check, check_error, http, server};
use super::*;

/// A bench whose component may reach these hosts in this network.
fn bench(allow: &[&str], network: Network) -> Bench {
    let worker = WasmComponents::new(&http(allow), ComponentMetrics::default()).in_network(network);
    Bench::on(worker, "http", &component("http")).granted(HTTP, &[])
}

fn url(host: &str, address: SocketAddr) -> Value {
    json!(format!("http://{host}:{}/", address.port()))
}

const THIS_MACHINE: [&str; 4] = ["127.0.0.1", "localhost", "::1", "127.0.0.2"];

#[tokio::test]
async fn the_workers_own_servers_are_not_reached_by_name_address_or_redirect() {
    let (redis, asked) = server(PAGE).await;
    let network = || Network {
        own_servers: vec![("localhost".to_owned(), redis.port())],
        ..Network::default()
    };
    for host in [
        "127.0.0.1",
        "localhost",
        "127.0.0.2",
        "[::ffff:127.0.0.1]",
        "0x7f.1",
    ] {
        let mut bench = bench(&THIS_MACHINE, network());
        check_error(bench.run("get", url(host, redis)).await, "denied");
    }
    let away = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://localhost:{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        redis.port()
    );
    let (other, _) = server(away.leak()).await;
    let mut bench = bench(&THIS_MACHINE, network());
    check_error(bench.run("get", url("127.0.0.1", other)).await, "denied");
    assert!(asked.lock().unwrap().is_empty(), "a request came through");
}

#[tokio::test]
async fn the_workers_own_endpoint_is_not_reached_wherever_it_listens() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bench = bench(&THIS_MACHINE, Network::default());
        bench.worker.keep_from(address);
        for host in ["127.0.0.1", "localhost"] {
            check_error(bench.run("get", url(host, address)).await, "denied");
        }
        // Another server of the machine is as it was.
        let (other, _) = server(PAGE).await;
        check(
            bench.run("get", url("127.0.0.1", other)).await,
            json!({"hi": 1}),
        );
        check(
            bench.run("get", url("localhost", other)).await,
            json!({"hi": 1}),
        );
    }
}

#[tokio::test]
async fn a_redirect_is_followed_from_port_to_port_and_not_for_ever() {
    let (page, _) = server(PAGE).await;
    let there = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://localhost:{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        page.port()
    );
    let (other, _) = server(there.leak()).await;
    let mut follows = bench(&THIS_MACHINE, Network::default());
    check(
        follows.run("get", url("127.0.0.1", other)).await,
        json!({"hi": 1}),
    );
    let again =
        "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (circle, asked) = server(again).await;
    check_error(
        follows.run("get", url("127.0.0.1", circle)).await,
        "unavailable",
    );
    assert_eq!(asked.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn a_tenant_with_a_list_of_its_own_goes_by_that_alone() {
    let (page, _) = server(PAGE).await;
    let list = |tenant: &str, allow: &[&str]| {
        let allow = allow.iter().map(|host| host.parse().unwrap()).collect();
        (TenantId::new(tenant).unwrap(), allow)
    };
    let port = format!("127.0.0.1:{}", page.port());
    let network = || Network {
        tenants: BTreeMap::from([
            list("closed", &[]),
            list("other", &["127.0.0.1:1"]),
            list("open", &[&port]),
        ]),
        ..Network::default()
    };
    for (common, tenant, reaches) in [
        (&["127.0.0.1"][..], "dev.local", true),
        (&["127.0.0.1"], "closed", false),
        (&["127.0.0.1"], "other", false),
        (&[], "open", true),
        (&[], "dev.local", false),
    ] {
        let mut bench = bench(common, network());
        bench.call.tenant = TenantId::new(tenant).unwrap();
        let answer = bench.run("get", url("127.0.0.1", page)).await;
        match reaches {
            true => check(answer, json!({"hi": 1})),
            false => check_error(answer, "denied"),
        }
    }
}
