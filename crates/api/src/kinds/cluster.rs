//! What the cluster itself runs on: networking, discovery, leases, certificates, runtime and priority classes.

use super::row;
use crate::kind::{AGE, Cell, Column, EDIT, Kind, NAME, Subresource, at, computed, field, status, text};

macro_rules! networking {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.networking.v1", "networking.k8s.io", "v1", $kind, $resource)
    };
}

const REQUEST: (&str, &str, &str) = ("certificates.k8s.io", "v1", "CertificateSigningRequest");

pub(super) static KINDS: &[Kind] = &[
    row!(
        "io.k8s.api.certificates.v1",
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests"
    )
    .cluster()
    .short(&["csr"])
    .with(&[Subresource::new("approval", REQUEST, EDIT), status(REQUEST)])
    .fields(&[field("spec.signerName", &["spec", "signerName"])])
    .columns(&[
        NAME,
        AGE,
        at("SignerName", &["spec", "signerName"]),
        at("Requestor", &["spec", "username"]),
        computed("RequestedDuration"),
        computed("Condition"),
    ]),
    row!("io.k8s.api.coordination.v1", "coordination.k8s.io", "v1", "Lease", "leases").columns(&[
        NAME,
        at("Holder", &["spec", "holderIdentity"]),
        AGE,
    ]),
    row!("io.k8s.api.discovery.v1", "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").columns(&[
        NAME,
        at("AddressType", &["addressType"]),
        computed("Ports"),
        computed("Endpoints"),
        AGE,
    ]),
    networking!("Ingress", "ingresses")
        .short(&["ing"])
        .path("ingress")
        .with(&[status(("networking.k8s.io", "v1", "Ingress"))])
        .columns(&[NAME, computed("Class"), computed("Hosts"), computed("Address"), computed("Ports"), AGE])
        .unenforced(),
    networking!("IngressClass", "ingressclasses")
        .cluster()
        .columns(&[NAME, at("Controller", &["spec", "controller"]), computed("Parameters"), AGE])
        .unenforced(),
    networking!("IPAddress", "ipaddresses").cluster().short(&["ip"]).columns(&[NAME, computed("ParentRef")]),
    networking!("NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .columns(&[NAME, text("Pod-Selector", Cell::Selector(&["spec", "podSelector"])), AGE])
        .unenforced(),
    networking!("ServiceCIDR", "servicecidrs")
        .cluster()
        .with(&[status(("networking.k8s.io", "v1", "ServiceCIDR"))])
        .columns(&[NAME, computed("CIDRs"), AGE]),
    row!("io.k8s.api.node.v1", "node.k8s.io", "v1", "RuntimeClass", "runtimeclasses").cluster().columns(&[
        NAME,
        at("Handler", &["handler"]),
        AGE,
    ]),
    row!("io.k8s.api.scheduling.v1", "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .cluster()
        .short(&["pc"])
        .columns(&[
            NAME,
            Column::new("Value", "integer", Cell::At(&["value"])),
            Column::new("Global-Default", "boolean", Cell::At(&["globalDefault"])),
            AGE,
            at("PreemptionPolicy", &["preemptionPolicy"]),
        ]),
];
