//! Schemas that cannot be derived: of texts with rules, of lists of words, and of what is told apart by a word. JSON Schema 2020-12, as
//! OpenAPI 3.1 has it.

use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// A text with a rule.
pub(crate) fn text(doc: &str, pattern: &str) -> RefOr<Schema> {
    string().description(Some(doc.trim())).pattern(Some(pattern)).into()
}

/// A word out of a list that may grow: no `enum`, for a reader that refuses new words sees nothing of a run.
pub(crate) fn words(doc: &str, words: &[(&str, &str)]) -> RefOr<Schema> {
    let list: String = words.iter().map(|(word, doc)| format!("\n- `{word}`: {}", doc.trim())).collect();
    let doc = format!("{}\n{list}\n\nThere may be more words one day; a reader must take them.", doc.trim());
    string().description(Some(doc)).examples(words.iter().map(|(word, _)| *word)).into()
}

/// A reference to the schema of a type.
pub(crate) fn reference<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

/// The schema of a type and of all that it is made of.
pub(crate) fn collect<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// What is none of the forms that are known.
pub(crate) fn anything() -> ObjectBuilder {
    let doc = "A form that this document does not know.";
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(doc))
}

/// An object that says its own kind by exactly this word in the field `tag`.
pub(crate) fn tagged(tag: &str, word: &str, doc: &str) -> ObjectBuilder {
    let word = string().enum_values(Some([word]));
    ObjectBuilder::new().description((!doc.is_empty()).then_some(doc)).property(tag, word).required(tag)
}

/// The same with all fields of `T`.
pub(crate) fn tagged_with<T: ToSchema>(tag: &str, word: &str, doc: &str) -> Schema {
    AllOfBuilder::new().description(Some(doc)).item(reference::<T>()).item(tagged(tag, word, "")).into()
}

/// An object with one field, as serde writes a variant that has fields of its own.
pub(crate) fn one_field(name: &str, doc: &str, value: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    ObjectBuilder::new().description(Some(doc)).property(name, value).required(name)
}

/// A schema with another description.
pub(crate) fn plain<T: PartialSchema>(doc: &str) -> RefOr<Schema> {
    match T::schema() {
        RefOr::T(Schema::Object(mut object)) => {
            object.description = Some(doc.to_owned());
            object.into()
        }
        other => other,
    }
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}
