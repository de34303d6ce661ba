use super::go::{self, Declaration, FieldKind, Package};

const SOURCE: &str = r#"
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Protocol is one.
// +enum
type Protocol string

const (
	// TCP
	ProtocolTCP Protocol = "TCP"
	ProtocolUDP Protocol = "UDP"
	ProtocolSCTP = Protocol("SCTP")
	ProtocolOther = Protocol(v1.Other)
)

type Thing struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`

	// ports
	// +listType=map
	// +listMapKey=port
	// +listMapKey=protocol
	// +default=ref(ProtocolTCP)
	Ports []Port `json:"ports,omitempty" patchStrategy:"merge" patchMergeKey:"port" protobuf:"bytes,2,rep,name=ports"`
	Target *intstr.IntOrString `json:"target" protobuf:"bytes,3,opt,name=target"`
}
"#;

#[test]
fn declarations_are_read() {
    let mut package = Package::default();
    let alias_of = |import: &str| Some(import.rsplit('/').nth(usize::from(import.ends_with("v1")))?.to_owned());
    go::parse("core.v1", SOURCE, &alias_of, &mut package);
    assert!(package.enums.contains("Protocol"));
    assert_eq!(package.constants["Protocol"], ["TCP", "UDP", "SCTP", "@Other"]);
    let Declaration::Struct { fields, atomic: false } = &package.types["Thing"] else { panic!() };
    assert_eq!((fields[0].kind, fields[0].ty.as_str()), (FieldKind::Inline, "meta.TypeMeta"));
    assert!(fields[1].optional && fields[1].omitempty);
    assert_eq!((fields[2].ty.as_str(), fields[2].tag), ("[]core.v1.Port", Some(2)));
    let marks: Vec<String> = fields[2].marks.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(marks.join(" "), "merge=merge by=port list=map keys=port,protocol default=ref(ProtocolTCP)");
    assert_eq!((fields[3].ty.as_str(), fields[3].omitempty), ("*intstr.IntOrString", false));
    assert_eq!(go::local("map[core.v1.Name]resource.Quantity", "core.v1"), "map[Name]resource.Quantity");
}
