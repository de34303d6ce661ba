//! Device selectors, compiled once, and what they said about devices.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::Device;
use parking_lot::Mutex;
use rules::devices::{Expression, SelectorError, Selectors};

/// More expressions than clusters have classes and claims of different kinds.
const MAX_EXPRESSIONS: usize = 1000;

#[derive(Default)]
pub(super) struct Cel {
    compiled: Mutex<HashMap<String, Arc<Compiled>>>,
}

struct Compiled {
    expression: Result<Expression, SelectorError>,
    /// By the device's address in the inventory.
    answers: Mutex<HashMap<usize, Result<bool, SelectorError>>>,
}

impl Cel {
    /// The inventory's devices aren't where they were.
    pub fn forget_devices(&self) {
        self.compiled.lock().values().for_each(|compiled| compiled.answers.lock().clear());
    }

    fn compiled(&self, text: &str) -> Arc<Compiled> {
        let mut known = self.compiled.lock();
        if let Some(compiled) = known.get(text) {
            return compiled.clone();
        }
        if known.len() >= MAX_EXPRESSIONS {
            known.clear();
        }
        let expression = Expression::compile(text).map_err(SelectorError::Compile);
        let compiled = Arc::new(Compiled { expression, answers: Mutex::default() });
        known.insert(text.to_owned(), compiled.clone());
        compiled
    }
}

impl Selectors for Cel {
    fn matches(&self, text: &str, driver: &str, device: &Device) -> Result<bool, SelectorError> {
        let compiled = self.compiled(text);
        let expression = compiled.expression.as_ref().map_err(Clone::clone)?;
        let address = std::ptr::from_ref(device) as usize;
        if let Some(answer) = compiled.answers.lock().get(&address) {
            return answer.clone();
        }
        let answer = expression.matches(driver, device).map_err(SelectorError::Runtime);
        compiled.answers.lock().insert(address, answer.clone());
        answer
    }
}
