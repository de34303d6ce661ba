//! Questions that are answered and not kept.

use super::row;
use crate::kind::Kind;

macro_rules! authentication {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.authentication.v1", "authentication.k8s.io", "v1", $kind, $resource).answered().cluster()
    };
}

macro_rules! authorization {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.authorization.v1", "authorization.k8s.io", "v1", $kind, $resource).answered()
    };
}

pub(super) static KINDS: &[Kind] = &[
    authentication!("SelfSubjectReview", "selfsubjectreviews"),
    authentication!("TokenReview", "tokenreviews"),
    authorization!("LocalSubjectAccessReview", "localsubjectaccessreviews"),
    authorization!("SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster(),
    authorization!("SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster(),
    authorization!("SubjectAccessReview", "subjectaccessreviews").cluster(),
];
