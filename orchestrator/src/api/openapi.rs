//! The OpenAPI document: made from the handlers and the types, with what all operations have in common put in here.

mod examples;

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use protocol::control::problem::{Code, MEDIA_TYPE, Problem};
use protocol::control::run::{Fleet, Happening, RunProgress};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Components, Schema, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, InfoBuilder, License, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required,
    Response, ResponseBuilder, Tag,
};
use utoipa::{IntoResponses, ToSchema};

use super::Api;
use super::problem::{Answered, Refusal};

/// How the document calls a browser's session.
const BROWSER: &str = "browser";
/// How it calls a client certificate.
const CERTIFICATE: &str = "certificate";

/// The document of what [`super::router`] serves.
pub fn document() -> OpenApi {
    finished(super::routes().into_openapi())
}

/// What the service is, and who may ask it what.
pub(super) fn finished(routes: OpenApi) -> OpenApi {
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    let info = InfoBuilder::new()
        .title("z-orchestrator")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Schedules runs, each of which puts a signed image onto the disk of one server, and says how far they are.\n\nWhat comes in is \
             read strictly: a key that is unknown or stands twice is refused. What goes out may have more keys, words and kinds of event \
             one day: take them, and pass over those you do not know. Whatever is refused is answered with a problem document.",
        ))
        .license(Some(license));
    let mut document = OpenApiBuilder::new()
        .info(info)
        .tags(Some([
            tag("runs", "For people and platforms."),
            tag("events", "For people and platforms: what happens, as it happens."),
            tag("sessions", "For browsers: a session instead of a token."),
            tag("agents", "For agents, and whoever starts them."),
            tag("service", "For everybody: about the service itself."),
        ]))
        .build();
    document.merge(routes);
    let mut components = document.components.take().unwrap_or_default();
    schema::<Problem>(&mut components);
    schema::<Happening>(&mut components);
    schema::<RunProgress>(&mut components);
    schema::<Fleet>(&mut components);
    for (name, description) in [
        (
            "operator",
            "The operator's token, which stands in `operator.token` in the service's data folder. It may do everything.",
        ),
        ("viewer", "The viewer's token, which stands in `viewer.token` there. It may look."),
        ("enrolment", "An enrolment token. It is good for one process."),
        (
            "session",
            "The session token that an agent got when it enrolled. It is good for its attempt, and together with its certificate.",
        ),
    ] {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        components.add_security_scheme(name, SecurityScheme::Http(scheme));
    }
    components.add_security_scheme(CERTIFICATE, SecurityScheme::MutualTls {
        description: Some("A client certificate. A person's says by its names what they may do; an agent's is over the key that it has enrolled with.".to_owned()),
        extensions: None,
        deprecated: None,
    });
    let cookie = "A browser's session, begun with `POST /v1/session`. What changes something must come from the service's own pages.";
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description(super::session::COOKIE, cookie));
    components.add_security_scheme(BROWSER, SecurityScheme::ApiKey(cookie));
    document.components = Some(components);
    operations(&mut document).for_each(|operation| {
        say_what_may_be_left_out(operation);
        say_what_else_proves_it(operation);
    });
    examples::add(&mut document);
    document
}

/// Who may look may do so as an operator too, and both may come by what else proves who they are.
fn say_what_else_proves_it(operation: &mut Operation) {
    let proof = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
    let Some(proofs) = &mut operation.security else { return };
    let is_signing = operation.operation_id.as_deref() == Some("begin_session");
    if proofs.contains(&proof("viewer")) {
        proofs.push(proof("operator"));
    }
    if proofs.contains(&proof("operator")) {
        proofs.push(proof(CERTIFICATE));
        if !is_signing {
            proofs.push(proof(BROWSER));
        }
    }
    if let Some(session) = proofs.iter_mut().find(|known| **known == proof("session")) {
        // Both, not either.
        *session = proof("session").add(CERTIFICATE, Vec::<String>::new());
    }
}

/// What a handler takes as an `Option` may be left out, which is something else than `null`, and only that may.
fn say_what_may_be_left_out(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
            && let SchemaType::Array(types) = &object.schema_type
            && let Some(kind) = types.iter().find(|kind| **kind != Type::Null)
        {
            object.schema_type = SchemaType::Type(kind.clone());
        }
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::True);
        for content in body.content.values_mut() {
            if let RefOr::T(content) = content
                && let Some(RefOr::T(Schema::OneOf(choice))) = &content.schema
                && let Some(there) = choice.items.iter().find(|item| matches!(item, RefOr::Ref(_)))
            {
                content.schema = Some(there.clone());
                body.required = Some(Required::False);
            }
        }
    }
}

fn tag(name: &str, description: &str) -> Tag {
    let mut tag = Tag::new(name);
    tag.description = Some(description.to_owned());
    tag
}

/// A type that no operation names by itself, with all that it is made of.
fn schema<T: ToSchema>(components: &mut Components) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    components.schemas.extend(schemas);
}

/// Every operation of a document.
pub(super) fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    document
        .paths
        .paths
        .values_mut()
        .flat_map(|path| [path.get.as_mut(), path.post.as_mut(), path.delete.as_mut()])
        .flatten()
}

/// The ways in which operations of one kind can be refused.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($code:ident)+;)+) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    refusals(&[$(Code::$code),+])
                }
            }
        )+
    };
}

refusals! {
    /// Of what is open to everybody.
    Open: TooMany Internal Unavailable;
    /// Of lists.
    Listing: BadRequest Unauthorized TooMany Internal Unavailable;
    /// Of events of all runs.
    Watching: BadRequest Unauthorized TooMany Internal Unavailable;
    /// Of what shows one run.
    Showing: BadRequest Unauthorized NotFound TooMany Internal Unavailable;
    /// Of what creates a run.
    Creating: BadRequest Unauthorized Forbidden Policy Timeout Conflict KeyReused KeyShut TooLarge MediaType TooMany Internal Unavailable;
    /// Of what changes a run.
    Telling: BadRequest Unauthorized Forbidden NotFound Timeout Conflict KeyShut TooLarge MediaType TooMany Internal Unavailable;
    /// Of sessions that begin.
    Beginning: BadRequest Unauthorized Timeout TooLarge MediaType TooMany Internal Unavailable;
    /// Of sessions that end.
    Leaving: BadRequest Forbidden TooMany Internal Unavailable;
    /// Of what shows a key.
    Unlocking: BadRequest Unauthorized Forbidden NotFound Timeout Conflict KeyShown KeyShut KeyGone TooLarge MediaType TooMany Internal
        Unavailable;
    /// Of what destroys a key.
    Destroying: BadRequest Unauthorized Forbidden NotFound Conflict KeyGone TooMany Internal Unavailable;
    /// Of what gives a key to an agent.
    Releasing: BadRequest Unauthorized Forbidden Revoked NotFound Timeout Conflict KeyReleased KeyShut AttemptOver KeyGone TooLarge MediaType
        TooMany Internal Unavailable;
    /// Of enrolments.
    Enrolments: BadRequest Unauthorized Forbidden Revoked NotFound Timeout Conflict AlreadyEnrolled NotYet AttemptOver TooLarge MediaType
        TooMany Internal Unavailable;
    /// Of what enrolled agents say.
    Reporting: BadRequest Unauthorized Forbidden Revoked NotFound Timeout Conflict AttemptOver TooLarge MediaType TooMany Internal
        Unavailable;
}

fn refusals(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, Vec<&Code>>::new();
    for code in codes {
        by_status.entry(code.status().unwrap_or(500)).or_default().push(code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), refusal(status, &codes).into())).collect()
}

fn refusal(status: u16, codes: &[&Code]) -> Response {
    let words: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.name(), code.title())).collect();
    let example = serde_json::to_value(examples::problem(codes.first().copied())).ok();
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).example(example).build();
    let response = ResponseBuilder::new().description(words.join("; ")).content(MEDIA_TYPE, content);
    let header = |kind, description| {
        let schema = ObjectBuilder::new().schema_type(SchemaType::Type(kind)).build();
        HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
    };
    match status {
        401 => response.header("WWW-Authenticate", header(Type::String, "`Bearer`")),
        408 | 429 | 503 => {
            response.header("Retry-After", header(Type::Integer, "Seconds after which trying again may help"))
        }
        _ => response,
    }
    .build()
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "service", operation_id = "openapi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/json"), Open),
)]
pub(super) async fn show(State(api): State<Api>) -> ([(axum::http::HeaderName, &'static str); 1], bytes::Bytes) {
    ([(CONTENT_TYPE, "application/json")], api.document.clone())
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/healthz", tag = "service", operation_id = "lives", security(()),
    responses((status = 204, description = "It does"), Open),
)]
pub(super) async fn lives() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Whether the service can work: its store answers, and it is not about to end
#[utoipa::path(
    get, path = "/readyz", tag = "service", operation_id = "ready", security(()),
    responses((status = 204, description = "It can"), Open),
)]
pub(super) async fn ready(State(api): State<Api>) -> Answered<StatusCode> {
    if api.drain.is_cancelled() {
        return Err(Refusal::from(Problem::new(Code::Unavailable, "the service is about to end").retry_after(5)));
    }
    api.service.ready().await?;
    Ok(StatusCode::NO_CONTENT)
}
