//! Arrays and maps of values, counted while they are written.

use rkyv::{
    Archive, Deserialize, Place, Serialize,
    rancor::{Fallible, Source},
    vec::{ArchivedVec, VecResolver},
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};

use crate::encode::Sink;

/// Archives a `Vec` as a `Vec`, and lets the serializer see how deep it is in and how much there is.
pub struct Nested;

impl<T: Archive> ArchiveWith<Vec<T>> for Nested {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;

    fn resolve_with(field: &Vec<T>, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(field.len(), resolver, out);
    }
}

impl<T: Serialize<S>, S: Sink + ?Sized> SerializeWith<Vec<T>, S> for Nested {
    fn serialize_with(field: &Vec<T>, out: &mut S) -> Result<VecResolver, S::Error> {
        out.enter(field.len())?;
        let resolver = ArchivedVec::serialize_from_slice(field, out)?;
        out.leave();
        Ok(resolver)
    }
}

impl<T, D> DeserializeWith<ArchivedVec<T::Archived>, Vec<T>, D> for Nested
where
    T: Archive,
    T::Archived: Deserialize<T, D>,
    D: Fallible + ?Sized,
    D::Error: Source,
{
    fn deserialize_with(field: &ArchivedVec<T::Archived>, decoder: &mut D) -> Result<Vec<T>, D::Error> {
        field.iter().map(|element| element.deserialize(decoder)).collect()
    }
}
