//! The document that `rpc.discover` answers with: OpenRPC, from the types of the protocol.

use std::{borrow::Cow, sync::LazyLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::{ErrorObject, Event, Goaway, Kind, LeaseNotice, methods};

/// The version of OpenRPC.
const OPENRPC: &str = "1.3.2";
/// Where a document keeps its types.
const SCHEMAS: &str = "/components/schemas";

/// The description of the protocol that this daemon speaks.
pub fn document() -> &'static Document {
    static DOCUMENT: LazyLock<Document> = LazyLock::new(generate);
    &DOCUMENT
}

/// An OpenRPC document.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Document(Json);

impl Document {
    /// The document.
    pub const fn json(&self) -> &Json {
        &self.0
    }
}

impl JsonSchema for Document {
    fn schema_name() -> Cow<'static, str> {
        "Document".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An OpenRPC document.",
            "type": "object",
            "required": ["openrpc", "info", "methods"],
            "properties": {
                "openrpc": { "type": "string" },
                "info": { "type": "object" },
                "methods": { "type": "array", "items": { "type": "object" } },
                "components": { "type": "object" },
            },
        })
    }
}

/// One method of the document.
pub(super) struct Described(Json);

impl Described {
    pub(super) fn new<P: JsonSchema, R: JsonSchema>(name: &str, summary: &str, generator: &mut SchemaGenerator) -> Self {
        let result = json!({ "name": R::schema_name(), "schema": generator.subschema_for::<R>() });
        Self(json!({
            "name": name,
            "summary": summary,
            "paramStructure": "by-name",
            "params": params::<P>(generator),
            "result": result,
            "errors": Kind::ALL.map(|kind| json!({ "$ref": format!("#/components/errors/{kind}") })),
        }))
    }
}

/// The members of `P`, each as a parameter.
fn params<P: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<Json> {
    let schema = P::json_schema(generator).to_value();
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let members = schema["properties"].as_object().into_iter().flatten();
    members.map(|(name, schema)| json!({ "name": name, "required": required(name), "schema": schema })).collect()
}

fn generate() -> Document {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let methods: Vec<Json> = methods::described(&mut generator).into_iter().map(|method| method.0).collect();
    let notifications = json!([
        { "name": "lease", "schema": generator.subschema_for::<LeaseNotice>() },
        { "name": "goaway", "schema": generator.subschema_for::<Goaway>() },
        { "name": "event", "schema": generator.subschema_for::<Event>() },
    ]);
    let errors = errors(&mut generator);
    Document(json!({
        "openrpc": OPENRPC,
        "info": {
            "title": "tenured",
            "description": "Locks, leader election and membership over a Unix socket: JSON-RPC 2.0, one message per line.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE") },
            "x-protocol": super::VERSION,
        },
        "methods": methods,
        "x-notifications": notifications,
        "components": { "schemas": generator.take_definitions(true), "errors": errors },
    }))
}

/// Every kind of error: its code, what it means, and what `data` has at least.
fn errors(generator: &mut SchemaGenerator) -> Map<String, Json> {
    let kinds = Kind::json_schema(generator).to_value();
    generator.subschema_for::<Kind>();
    let meaning = |kind: Kind| {
        let all = kinds["oneOf"].as_array().into_iter().flatten();
        all.filter(|one| one["const"] == kind.as_str()).find_map(|one| one["description"].as_str()).unwrap_or_default()
    };
    Kind::ALL.into_iter().map(|kind| (kind.to_string(), json!(ErrorObject::new(kind, meaning(kind))))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What `document` refers to, wherever.
    fn references<'a>(json: &'a Json, found: &mut BTreeSet<&'a str>) {
        match json {
            Json::Object(members) => {
                found.extend(members.get("$ref").and_then(Json::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Json::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn what_is_referred_to_is_there() {
        let document = document().json();
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(found.len() > 30, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn parameters_are_those_that_are_taken() {
        let method = |name: &str| {
            let all = document().json()["methods"].as_array().unwrap();
            all.iter().find(|method| method["name"] == name).unwrap()
        };
        let params = |name: &str| -> Vec<(String, bool)> {
            let all = method(name)["params"].as_array().unwrap().iter();
            all.map(|param| (param["name"].as_str().unwrap().to_owned(), param["required"] == true)).collect()
        };
        assert_eq!(params("ping"), []);
        assert_eq!(params("lock.break"), [("fence".to_owned(), true), ("name".to_owned(), true)]);
        let update = params("member.update");
        assert!(update.contains(&("lease".to_owned(), true)) && update.contains(&("address".to_owned(), false)), "{update:?}");
        assert!(document().json()["components"]["schemas"]["LockAcquired"]["properties"]["fence"].is_object());
    }

    #[test]
    fn every_kind_of_error_is_there_and_says_what_it_means() {
        let errors = document().json()["components"]["errors"].as_object().unwrap();
        // As many as the type has: what derives from it cannot forget one.
        let kinds = schemars::schema_for!(Kind).to_value();
        let kinds: BTreeSet<&str> = kinds["oneOf"].as_array().unwrap().iter().filter_map(|one| one["const"].as_str()).collect();
        assert_eq!(errors.keys().map(String::as_str).collect::<BTreeSet<_>>(), kinds);
        for kind in Kind::ALL {
            let error = &errors[kind.as_str()];
            assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(kind.code()), &json!(kind)));
            assert!(!error["message"].as_str().unwrap().is_empty(), "{error}");
        }
    }

    #[test]
    fn states_of_members_are_those_that_are_taken() {
        let states = &document().json()["components"]["schemas"]["MemberState"]["oneOf"];
        let states: Vec<&str> = states.as_array().unwrap().iter().filter_map(|one| one["const"].as_str()).collect();
        let refused = serde_json::from_str::<tenure::InstanceState>("\"\"").unwrap_err().to_string();
        // Serde names all that there are.
        assert_eq!(refused.matches('`').count(), 2 * (1 + states.len()), "{refused}");
        assert!(states.iter().all(|state| refused.contains(&format!("`{state}`"))), "{refused}");
    }
}
