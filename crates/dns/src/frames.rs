//! What daemon and DNS process tell each other: lines of JSON over a unix socket, formats only grow.
//!
//! The daemon greets first. `Hello` stays as it is for ever, so that any release can take over the sockets of any other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::zone::{Endpoint, Service};

/// The format of all frames but `Hello`.
pub(crate) const FORMAT: u32 = 1;

/// From the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "frame")]
pub(crate) enum ToProcess {
    Hello {
        format: u32,
    },
    /// Answer on the two sockets (UDP, TCP) that come along, once the first snapshot is complete.
    Listen,
    /// A snapshot follows; what it doesn't name is forgotten when it is complete.
    Begin {
        resolv_conf: PathBuf,
    },
    Set {
        namespace: String,
        name: String,
        service: Service,
        /// Empty unless the Service is headless.
        #[serde(default)]
        endpoints: Vec<Endpoint>,
    },
    Gone {
        namespace: String,
        name: String,
    },
    Complete,
    /// Another process takes the sockets over: end with this connection.
    Retire,
}

/// From the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "frame")]
pub(crate) enum FromProcess {
    /// Its sockets (UDP, TCP) come along if it has any.
    Hello {
        format: u32,
        /// See [`crate::program::identity`].
        program: String,
        domain: String,
        listening: bool,
    },
    /// The snapshot is what is answered from now.
    Complete,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Port, ServiceKind};

    /// A change here is a change of the format: older releases must still read it.
    #[test]
    fn frames_are_as_ever() {
        let check = |frame: &dyn Fn() -> String, expect: &str| assert_eq!(frame(), expect);
        let to = |frame: ToProcess| {
            let json = serde_json::to_string(&frame).unwrap();
            assert_eq!(serde_json::from_str::<ToProcess>(&json).unwrap(), frame);
            json
        };
        let from = |frame: FromProcess| {
            let json = serde_json::to_string(&frame).unwrap();
            assert_eq!(serde_json::from_str::<FromProcess>(&json).unwrap(), frame);
            json
        };
        check(&|| to(ToProcess::Hello { format: 1 }), r#"{"frame":"hello","format":1}"#);
        check(&|| to(ToProcess::Listen), r#"{"frame":"listen"}"#);
        check(
            &|| to(ToProcess::Begin { resolv_conf: "/etc/resolv.conf".into() }),
            r#"{"frame":"begin","resolvConf":"/etc/resolv.conf"}"#,
        );
        let port = || Port { name: "http".into(), protocol: "tcp".into(), port: 80 };
        let set = |kind, endpoints| {
            to(ToProcess::Set {
                namespace: "ns".into(),
                name: "web".into(),
                service: Service { kind, ports: vec![port()] },
                endpoints,
            })
        };
        check(
            &|| set(ServiceKind::Addresses(vec!["10.96.0.7".parse().unwrap()]), Vec::new()),
            r#"{"frame":"set","namespace":"ns","name":"web","service":{"kind":{"addresses":["10.96.0.7"]},"ports":[{"name":"http","protocol":"tcp","port":80}]},"endpoints":[]}"#,
        );
        let endpoint = Endpoint { ip: "10.244.0.2".parse().unwrap(), hostname: None, ready: true, ports: vec![port()] };
        check(
            &|| set(ServiceKind::Headless { not_ready_too: false }, vec![endpoint.clone()]),
            r#"{"frame":"set","namespace":"ns","name":"web","service":{"kind":{"headless":{"notReadyToo":false}},"ports":[{"name":"http","protocol":"tcp","port":80}]},"endpoints":[{"ip":"10.244.0.2","hostname":null,"ready":true,"ports":[{"name":"http","protocol":"tcp","port":80}]}]}"#,
        );
        check(
            &|| set(ServiceKind::External("example.com".into()), Vec::new()),
            r#"{"frame":"set","namespace":"ns","name":"web","service":{"kind":{"external":"example.com"},"ports":[{"name":"http","protocol":"tcp","port":80}]},"endpoints":[]}"#,
        );
        check(
            &|| to(ToProcess::Gone { namespace: "ns".into(), name: "web".into() }),
            r#"{"frame":"gone","namespace":"ns","name":"web"}"#,
        );
        check(&|| to(ToProcess::Complete), r#"{"frame":"complete"}"#);
        check(&|| to(ToProcess::Retire), r#"{"frame":"retire"}"#);
        check(
            &|| {
                from(FromProcess::Hello {
                    format: 1,
                    program: "1:2".into(),
                    domain: "cluster.local".into(),
                    listening: true,
                })
            },
            r#"{"frame":"hello","format":1,"program":"1:2","domain":"cluster.local","listening":true}"#,
        );
        check(&|| from(FromProcess::Complete), r#"{"frame":"complete"}"#);
    }
}
