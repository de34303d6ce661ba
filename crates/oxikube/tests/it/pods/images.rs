//! Images from registries, and what is said when there are none.

use env::Env;
use testkit::image::{Image, Layer, Packing, busybox_layer};
use testkit::machine::Machine;
use testkit::registry::{Auth, Fault, Options, Registry};
use tokio::runtime::Runtime;

use super::{create, event, jsonpath, log, shows};

const WAITING: &str = "{.status.containerStatuses[0].state.waiting.reason}";

/// Registries on the machine's loopback, and what they run on.
pub struct Registries {
    _anyone: Registry,
    _basic: Registry,
    _token: Registry,
    _runtime: Runtime,
}

fn registry(machine: &Machine, runtime: &Runtime, auth: Auth) -> Registry {
    let options = Options { auth, ..Options::default() };
    let start = || runtime.block_on(Registry::start_with(&Env::system(), options));
    machine.namespace().run(start).unwrap().unwrap()
}

/// An image that says `word`, in a layer nobody else has.
fn image(word: &str) -> Image {
    let layer = Layer::new().file("word", 0o644, format!("{word}\n"));
    let base = Image::new().layer(busybox_layer().unwrap(), Packing::Gzip);
    base.layer(layer, Packing::Gzip).env(["PATH=/bin"]).cmd(["cat", "/word"])
}

fn spec(image: &str, more: &str) -> String {
    format!("  restartPolicy: Never\n  containers: [{{name: main, image: '{image}'}}]\n{more}")
}

fn secret(machine: &Machine, name: &str, registry: &Registry, password: &str) {
    let server = registry.address();
    let login = format!("--docker-server={server} --docker-username=visitor --docker-password={password}");
    machine.kubectl(&format!("create secret docker-registry {name} {login}")).ok();
}

pub fn begin(machine: &Machine) -> Registries {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let login = || ("visitor".to_owned(), "right".to_owned());
    let (username, password) = login();
    let anyone = registry(machine, &runtime, Auth::Anyone);
    let basic = registry(machine, &runtime, Auth::Basic { username, password });
    let token = registry(machine, &runtime, Auth::Token { login: Some(login()) });

    let wrong = image("wrong digest");
    anyone.fail(&wrong.layer_digests()[1], Fault::Corrupt);
    secret(machine, "basic", &basic, "right");
    secret(machine, "token", &token, "right");
    secret(machine, "basic-wrong", &basic, "wrong");
    secret(machine, "token-wrong", &token, "wrong");
    let secrets = |names: &str| format!("  imagePullSecrets: [{names}]\n");
    let basic_image = basic.put("private/basic:1", &image("basic"));
    let token_image = token.put("private/token:1", &image("token"));
    let never = "  containers: [{name: main, image: 'oxikube.local/none:1', imagePullPolicy: Never}]\n".to_owned();
    create(
        machine,
        &[
            ("anonymous", &spec(&anyone.put("some/words:1", &image("anonymous")), "")),
            ("basic", &spec(&basic_image, &secrets("{name: basic-wrong}, {name: basic}"))),
            ("token", &spec(&token_image, &secrets("{name: token}"))),
            ("no-secret", &spec(&basic.put("private/other:1", &image("other")), "")),
            ("bad-secret", &spec(&token.put("private/other:1", &image("other")), &secrets("{name: token-wrong}"))),
            ("bad-basic", &spec(&basic.put("private/third:1", &image("third")), &secrets("{name: basic-wrong}"))),
            ("missing", &spec(&format!("{}/no/such:1", anyone.address()), "")),
            ("never", &never),
            ("corrupt", &spec(&anyone.put("some/wrong:1", &wrong), "")),
        ],
    );
    Registries { _anyone: anyone, _basic: basic, _token: token, _runtime: runtime }
}

pub fn pulled(machine: &Machine) {
    for pod in ["anonymous", "basic", "token"] {
        shows(machine, pod, "{.status.phase}", "Succeeded");
        log(machine, pod, |log| log == format!("{pod}\n"));
        event(machine, pod, &["Normal Pulled Successfully pulled image"]);
        let id = jsonpath(machine, &format!("pod {pod}"), "{.status.containerStatuses[0].imageID}");
        assert!(id.contains("@sha256:"), "{pod}: {id}");
    }
}

pub fn refused(machine: &Machine) {
    let check = |pod: &str, cause: &str| {
        event(machine, pod, &["Warning Failed Failed to pull image", cause]);
        event(machine, pod, &["Warning Failed Error: ErrImagePull"]);
        event(machine, pod, &["Normal BackOff Back-off pulling image"]);
        shows(machine, pod, "{.status.phase}", "Pending");
        machine.eventually_or("a back-off", crate::support::SOON, || {
            let reason = jsonpath(machine, &format!("pod {pod}"), WAITING);
            if reason == "ImagePullBackOff" { Ok(()) } else { Err(format!("{pod}: {reason}")) }
        });
    };
    check("no-secret", "401");
    check("bad-secret", "incorrect username or password");
    check("bad-basic", "401");
    check("missing", "not found");
    check("corrupt", "digest");
    shows(machine, "never", WAITING, "ErrImageNeverPull");
    event(machine, "never", &["Warning ErrImageNeverPull", "is not present with pull policy of Never"]);
    let pods = "anonymous basic token no-secret bad-secret bad-basic missing never corrupt";
    machine.kubectl(&format!("delete pod {pods} --now --wait=false")).ok();
}
