//! What a policy decides about one request.

use cel::admission::Variables;
use cel::{Activation, Budget, EvalError, MATCH_CONDITIONS_LIMIT, PER_OBJECT_LIMIT};

use super::policy::{Compiled, Policy, Validation};

/// Longer messages are not shown. Upstream: `MaxEvaluatedMessageExpressionSizeBytes`.
const MAX_MESSAGE: usize = 5 * 1024;

/// A denial; what is admitted needs no words.
pub(super) struct Decision {
    pub message: String,
    pub reason: String,
}

/// What one evaluation of a policy may cost.
pub(super) struct Budgets {
    conditions: Budget,
    rest: Budget,
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets { conditions: Budget::new(MATCH_CONDITIONS_LIMIT), rest: Budget::new(PER_OBJECT_LIMIT) }
    }
}

pub(super) fn decide<'a>(policy: &'a Policy, base: &Activation<'a>, budgets: &'a Budgets) -> Vec<Decision> {
    let budget = &budgets.rest;
    // Failures deny unless the policy ignores them.
    let failed = |message: String| {
        if policy.ignores_failures { Vec::new() } else { vec![Decision { message, reason: String::new() }] }
    };
    match applies(policy, base, &budgets.conditions) {
        Ok(false) => return Vec::new(),
        Ok(true) => {}
        Err(message) => return failed(message),
    }
    let variables = Variables::new(base.clone(), &policy.variables, budget);
    let activation = variables.activation();
    let mut decisions = Vec::new();
    for validation in &policy.validations {
        match run(&validation.program, &validation.expression, &activation, budget) {
            Ok(value) if value.as_bool() == Some(true) => {}
            Ok(_) => {
                let reason = if validation.reason.is_empty() { "Invalid" } else { &validation.reason };
                match message(validation, &activation, budget) {
                    Ok(message) => decisions.push(Decision { message, reason: reason.to_owned() }),
                    Err(why) => decisions.extend(failed(format!("failed messageExpression: {why}"))),
                }
            }
            Err(Failure::Budget(message)) => return failed(message),
            Err(Failure::Own(message)) => decisions.extend(failed(message)),
        }
    }
    // Nobody keeps an audit log yet; what fails still counts.
    for (_, annotation) in &policy.annotations {
        if let Err(Failure::Own(message) | Failure::Budget(message)) = run(annotation, "", &activation, budget) {
            decisions.extend(failed(message));
        }
    }
    decisions
}

enum Failure {
    /// Nothing more can be evaluated.
    Budget(String),
    Own(String),
}

fn run<'a>(
    program: &Compiled,
    expression: &str,
    activation: &Activation<'a>,
    budget: &Budget,
) -> Result<cel::Value<'a>, Failure> {
    let program = program.as_ref().map_err(|why| Failure::Own(format!("compilation error: {why}")))?;
    let expression = if expression.is_empty() { program.source() } else { expression };
    program.evaluate(activation, budget).map_err(|error| match error {
        EvalError::Budget => Failure::Budget(error.to_string()),
        other => Failure::Own(format!("expression '{expression}' resulted in error: {other}")),
    })
}

/// Whether all match conditions hold. One that does not outweighs others that fail.
fn applies<'a>(policy: &'a Policy, base: &Activation<'a>, budget: &'a Budget) -> Result<bool, String> {
    if policy.conditions.is_empty() {
        return Ok(true);
    }
    let variables = Variables::new(base.clone(), &policy.variables, budget);
    let activation = variables.activation();
    let mut failures = Vec::new();
    for (_, condition) in &policy.conditions {
        match run(condition, "", &activation, budget) {
            Ok(value) if value.as_bool() == Some(false) => return Ok(false),
            Ok(_) => {}
            Err(Failure::Budget(_)) if policy.ignores_failures => return Ok(false),
            Err(Failure::Budget(why)) => return Err(why),
            Err(Failure::Own(why)) => failures.push(why),
        }
    }
    match failures.as_slice() {
        [] => Ok(true),
        _ if policy.ignores_failures => Ok(false),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// What the user is told: the message's expression, the message, or the expression itself, whatever is there first.
fn message(validation: &Validation, activation: &Activation<'_>, budget: &Budget) -> Result<String, String> {
    if let Some(program) = &validation.message_program {
        match run(program, "", activation, budget) {
            Ok(value) => {
                let text = value.as_str().map(str::trim).unwrap_or_default();
                if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') {
                    return Ok(text.to_owned());
                }
            }
            Err(Failure::Budget(why)) => return Err(why),
            Err(Failure::Own(_)) => {}
        }
    }
    let written = validation.message.trim();
    if !written.is_empty() {
        return Ok(written.to_owned());
    }
    Ok(format!("failed expression: {}", validation.expression.trim()))
}
