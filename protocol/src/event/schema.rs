//! The schemas of what has a place for words that are not known yet.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::{Body, Failure, KINDS, PathChanged, Phase, Progress, Proof, ReservationFacts, RunStarted, Step, Summary};
use crate::schema::{anything, collect, one_field, plain, reference, tagged, tagged_with};

type Schemas = Vec<(String, RefOr<Schema>)>;

impl PartialSchema for Body {
    fn schema() -> RefOr<Schema> {
        let known = |kind: &str, doc: &str| tagged("kind", kind, doc);
        let phase = |kind: &str, doc: &str| known(kind, doc).property("phase", reference::<Phase>()).required("phase");
        let message = |object: ObjectBuilder, doc| object.property("message", plain::<String>(doc)).required("message");
        OneOfBuilder::new()
            .description(Some(
                "What happened, told apart by `kind`. There may be more kinds one day; a reader must take them.",
            ))
            .item(tagged_with::<RunStarted>("kind", "run-started", "The first event of an attempt."))
            .item(phase("phase-started", "A phase began."))
            .item(
                phase("step-started", "A step within a phase began; the one before has ended.")
                    .property("step", reference::<Step>())
                    .required("step"),
            )
            .item(tagged_with::<Progress>("kind", "progress", "How far a step is."))
            .item(message(
                known("retry", "Something had to be fetched again.")
                    .property("source", plain::<String>("The source that failed or sent wrong bytes."))
                    .required("source"),
                "What went wrong.",
            ))
            .item(message(known("warning", "Something a person should know; the run goes on."), "What."))
            .item(tagged_with::<PathChanged>(
                "kind",
                "path-changed",
                "A path to the target came, went, failed or came back.",
            ))
            .item(
                phase("phase-finished", "A phase ended well.")
                    .property("seconds", plain::<f64>("How long it took."))
                    .required("seconds")
                    .property("detail", plain::<String>("What came of it, in one line."))
                    .required("detail"),
            )
            .item(tagged_with::<Summary>("kind", "run-finished", "The last event of an attempt that reached its goal."))
            .item(tagged_with::<Failure>("kind", "run-failed", "The last event of an attempt that did not."))
            .item(unknown())
            .into()
    }
}

/// Every kind but those that are known, which must be well formed.
fn unknown() -> Schema {
    let kind = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some(format!("^(?!(?:{})$)", KINDS.join("|"))));
    one_field("kind", "A kind that this document does not know.", kind).into()
}

impl ToSchema for Body {
    fn schemas(schemas: &mut Schemas) {
        collect::<RunStarted>(schemas);
        collect::<Phase>(schemas);
        collect::<Step>(schemas);
        collect::<Progress>(schemas);
        collect::<PathChanged>(schemas);
        collect::<Summary>(schemas);
        collect::<Failure>(schemas);
    }
}

/// Any of these forms, or one that is not known.
fn open(doc: &str) -> AnyOfBuilder {
    AnyOfBuilder::new().description(Some(doc))
}

impl PartialSchema for ReservationFacts {
    fn schema() -> RefOr<Schema> {
        let held = ObjectBuilder::new()
            .property("key", plain::<String>("Its key, `0x` and 16 hex digits."))
            .required("key")
            .property("preempted", Vec::<String>::schema());
        let unsupported = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .description(Some("Nothing: the storage cannot, and the run did without."))
            .enum_values(Some(["unsupported"]));
        open("What guards a target against other writers. There may be more forms one day.")
            .item(one_field("held", "A SCSI-3 persistent reservation, write exclusive for registrants only.", held))
            .item(unsupported)
            .item(anything())
            .into()
    }
}

impl ToSchema for ReservationFacts {}

impl PartialSchema for Proof {
    fn schema() -> RefOr<Schema> {
        let bytes = ObjectBuilder::new().property("bytes", u64::schema()).required("bytes");
        let reason = ObjectBuilder::new().property("reason", String::schema()).required("reason");
        open("What is known about the media. There may be more forms one day.")
            .item(one_field("read-back", "Read back from the media and found equal.", bytes))
            .item(one_field("not-proven", "Nothing, and why not.", reason))
            .item(anything())
            .into()
    }
}

impl ToSchema for Proof {}
