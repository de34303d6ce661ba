use parking_lot::Mutex;

use super::*;

/// Answers each path as told: code and redirect.
async fn serve(
    answers: Vec<(&'static str, u16, Option<String>)>,
) -> (u16, Arc<Mutex<Vec<HeaderMap>>>, client::TaskGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let log = seen.clone();
    let service = move |request: Request<hyper::body::Incoming>| {
        log.lock().push(request.headers().clone());
        let path = request.uri().path_and_query().unwrap().to_string();
        let found = answers.iter().find(|(known, ..)| *known == path).cloned();
        async move {
            let (_, code, location) = found.unwrap_or(("", 404, None));
            let mut answer = http::Response::builder().status(code);
            if let Some(location) = location {
                answer = answer.header(LOCATION, location);
            }
            answer.body(Empty::<Bytes>::new()).unwrap()
        }
    };
    let env = Env::system();
    let server = streams::Server::plain(env.clone()).run(listener, service, std::future::pending());
    let task = env.spawn(async move { server.await.unwrap() });
    (port, seen, client::TaskGuard::new(task))
}

fn target(port: u16, path: &str, headers: &[(&str, &str)]) -> Target {
    let headers: Vec<_> = headers.iter().map(|(n, v)| serde_json::json!({"name": n, "value": v})).collect();
    let get = serde_json::json!({"path": path, "port": port, "httpHeaders": headers});
    Target::new(&serde_json::from_value(get).unwrap(), "127.0.0.1", port)
}

#[tokio::test]
async fn answers_are_read_and_redirects_followed() {
    let (port, _, _server) = serve(vec![
        ("/ok?a=b", 200, None),
        ("/bad", 503, None),
        ("/local", 302, Some("/ok?a=b".into())),
        ("/away", 301, Some("http://other.example/".into())),
        ("/loop", 302, Some("/loop".into())),
    ])
    .await;
    let env = Env::system();
    let check = async |path: &str, expect: Result<u16, String>| {
        let answer = get(&env, &target(port, path, &[]), "kube-probe/1.35", Duration::from_secs(10)).await;
        assert_eq!(answer.map(|answer| answer.code), expect, "{path}");
    };
    check("/ok?a=b", Ok(200)).await;
    check("ok?a=b", Ok(200)).await;
    check("/bad", Ok(503)).await;
    check("/none", Ok(404)).await;
    check("/local", Ok(200)).await;
    check("/away", Ok(301)).await;
    check("/loop", Err(format!("Get \"http://127.0.0.1:{port}/loop\": stopped after 10 redirects"))).await;
}

#[tokio::test]
async fn headers_are_the_specs_or_the_usual() {
    let (port, seen, _server) = serve(vec![("/", 200, None)]).await;
    let env = Env::system();
    let ask = async |headers: &[(&str, &str)]| {
        get(&env, &target(port, "/", headers), "kube-probe/1.35", Duration::from_secs(10)).await.unwrap();
        seen.lock().pop().unwrap()
    };
    let usual = ask(&[]).await;
    assert_eq!(usual[USER_AGENT], "kube-probe/1.35");
    assert_eq!(usual[ACCEPT], "*/*");
    assert_eq!(usual[HOST], format!("127.0.0.1:{port}"));
    let own = ask(&[("Host", "web.example"), ("X-A", "1"), ("X-A", "2"), ("Accept", "")]).await;
    assert_eq!(own[HOST], "web.example");
    assert_eq!(own.get_all("x-a").iter().count(), 2);
    assert!(!own.contains_key(ACCEPT));
}

#[tokio::test]
async fn failures_are_told_as_upstream_tells_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let env = Env::system();
    // Nobody accepts: the answer never comes.
    let error = get(&env, &target(port, "/x", &[]), "a", Duration::from_secs(1)).await.unwrap_err();
    let expect = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(error, format!("Get \"http://127.0.0.1:{port}/x\": {expect}"));
    drop(listener);
    let error = get(&env, &target(port, "/x", &[]), "a", Duration::from_secs(60)).await.unwrap_err();
    let expect = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(error, format!("Get \"http://127.0.0.1:{port}/x\": {expect}"));
}
