//! What upstream keeps behind feature gates that are off by default.

/// Which of upstream's features that are off by default are on; those that can be switched here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `DRADeviceTaints`: devices have taints, which keep pods away and drive them out.
    pub device_taints: bool,
    /// `MaxUnavailableStatefulSet`: the `maxUnavailable` of a StatefulSet's rolling update is kept and obeyed.
    pub max_unavailable_stateful_set: bool,
}

impl Features {
    /// Switches the feature that `gate` names. `false`: none of that name can be switched.
    pub fn switch(&mut self, gate: &str, on: bool) -> bool {
        let feature = match gate {
            "DRADeviceTaints" => &mut self.device_taints,
            "MaxUnavailableStatefulSet" => &mut self.max_unavailable_stateful_set,
            _ => return false,
        };
        *feature = on;
        true
    }
}
