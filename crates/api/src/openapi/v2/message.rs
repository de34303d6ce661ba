//! The document as gnostic's protobuf message. A message that is written in parts is read as one, so each path and
//! each definition is written by itself. Upstream: github.com/google/gnostic-models openapiv2/OpenAPIv2.proto.

use serde_json::Value as Json;

use crate::protobuf::wire::{put_bytes, put_message, put_number};

/// `swagger` and `info`.
pub(super) fn start(out: &mut Vec<u8>, info: &Json) {
    text(out, 1, "2.0");
    message(out, 2, |out| {
        string(out, 1, info, "title");
        string(out, 2, info, "version");
    });
}

/// One entry of `paths`.
pub(super) fn path(out: &mut Vec<u8>, path: &str, item: &Json) {
    message(out, 8, |out| named(out, 2, path, |out| path_item(out, item)));
}

/// One entry of `definitions`.
pub(super) fn definition(out: &mut Vec<u8>, name: &str, definition: &Json) {
    message(out, 9, |out| named(out, 1, name, |out| schema(out, definition)));
}

/// `security` and `securityDefinitions`, of keys in headers.
pub(super) fn finish(out: &mut Vec<u8>, security: &Json) {
    for (name, scheme) in members(security) {
        message(out, 12, |out| named(out, 1, name, |_| {}));
        let key = |out: &mut Vec<u8>| {
            for (number, name) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                string(out, number, scheme, name);
            }
        };
        message(out, 13, |out| named(out, 1, name, |out| message(out, 2, key)));
    }
}

fn path_item(out: &mut Vec<u8>, item: &Json) {
    for (name, value) in members(item) {
        let number = match name.as_str() {
            "get" => 2,
            "put" => 3,
            "post" => 4,
            "delete" => 5,
            "options" => 6,
            "head" => 7,
            "patch" => 8,
            _ => {
                parameters(out, 9, value);
                continue;
            }
        };
        message(out, number, |out| operation(out, value));
    }
}

fn operation(out: &mut Vec<u8>, operation: &Json) {
    for (name, value) in members(operation) {
        match name.as_str() {
            "produces" => texts(out, 6, value),
            "consumes" => texts(out, 7, value),
            "parameters" => parameters(out, 8, value),
            "responses" => message(out, 9, |out| {
                for (code, response) in members(value) {
                    let body = |out: &mut Vec<u8>| {
                        string(out, 1, response, "description");
                        if let Some(inner) = response.get("schema") {
                            message(out, 2, |out| message(out, 1, |out| schema(out, inner)));
                        }
                    };
                    named(out, 1, code, |out| message(out, 1, body));
                }
            }),
            "schemes" => texts(out, 10, value),
            name => extension(out, 13, name, value),
        }
    }
}

fn parameters(out: &mut Vec<u8>, number: u16, parameters: &Json) {
    for parameter in parameters.as_array().into_iter().flatten() {
        message(out, number, |out| message(out, 1, |out| one_parameter(out, parameter)));
    }
}

fn one_parameter(out: &mut Vec<u8>, parameter: &Json) {
    let place = parameter["in"].as_str().unwrap_or_default();
    if place == "body" {
        return message(out, 1, |out| {
            string(out, 2, parameter, "name");
            string(out, 3, parameter, "in");
            flag(out, 4, parameter, "required");
            message(out, 5, |out| schema(out, &parameter["schema"]));
        });
    }
    // The kinds of parameters differ in one field before their types.
    let (kind, shift) = if place == "path" { (4, 0) } else { (3, 1) };
    message(out, 2, |out| {
        message(out, kind, |out| {
            flag(out, 1, parameter, "required");
            string(out, 2, parameter, "in");
            string(out, 3, parameter, "description");
            string(out, 4, parameter, "name");
            string(out, 5 + shift, parameter, "type");
            flag(out, 19 + shift, parameter, "uniqueItems");
        });
    });
}

fn schema(out: &mut Vec<u8>, schema: &Json) {
    for (name, value) in members(schema) {
        match name.as_str() {
            "$ref" => string(out, 1, schema, name),
            "format" => string(out, 2, schema, name),
            "description" => string(out, 4, schema, name),
            "required" => texts(out, 19, value),
            "enum" => {
                for value in value.as_array().into_iter().flatten() {
                    any(out, 20, value);
                }
            }
            "additionalProperties" => message(out, 21, |out| message(out, 1, |out| self::schema(out, value))),
            "type" => message(out, 22, |out| text(out, 1, value.as_str().unwrap_or_default())),
            "items" => message(out, 23, |out| message(out, 1, |out| self::schema(out, value))),
            "properties" => message(out, 25, |out| {
                for (name, property) in members(value) {
                    named(out, 1, name, |out| self::schema(out, property));
                }
            }),
            name => extension(out, 31, name, value),
        }
    }
}

fn extension(out: &mut Vec<u8>, number: u16, name: &str, value: &Json) {
    message(out, number, |out| {
        text(out, 1, name);
        any(out, 2, value);
    });
}

/// Any value, as YAML; JSON is YAML too.
fn any(out: &mut Vec<u8>, number: u16, value: &Json) {
    message(out, number, |out| text(out, 2, &format!("{value}\n")));
}

/// An entry of a map: its name and its value.
fn named(out: &mut Vec<u8>, number: u16, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    message(out, number, |out| {
        text(out, 1, name);
        message(out, 2, value);
    });
}

fn message(out: &mut Vec<u8>, number: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let written = put_message(out, number, |out| {
        write(out);
        Ok(())
    });
    debug_assert!(written.is_ok(), "nothing in here fails");
}

fn members(value: &Json) -> impl Iterator<Item = (&String, &Json)> {
    value.as_object().into_iter().flatten()
}

fn text(out: &mut Vec<u8>, number: u16, text: &str) {
    put_bytes(out, number, text.as_bytes());
}

fn texts(out: &mut Vec<u8>, number: u16, values: &Json) {
    for value in values.as_array().into_iter().flatten().filter_map(Json::as_str) {
        text(out, number, value);
    }
}

fn string(out: &mut Vec<u8>, number: u16, owner: &Json, name: &str) {
    if let Some(value) = owner.get(name).and_then(Json::as_str) {
        text(out, number, value);
    }
}

fn flag(out: &mut Vec<u8>, number: u16, owner: &Json, name: &str) {
    if owner.get(name).and_then(Json::as_bool) == Some(true) {
        put_number(out, number, 1);
    }
}
