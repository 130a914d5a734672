//! Edits of protobuf messages, held against prost, which decodes them whole. The first byte says
//! which field is edited, the second how long its new value is; the value and the message follow.

use std::collections::HashMap;

use bytes::Bytes;
use inlay::protocol::imports::{Verdict, in_gateway_solve};
use inlay::protocol::proto::control::SolveRequest;
use inlay::protocol::proto::{gateway, pb};
use inlay::protocol::result::{images, with_metadata};
use inlay::protocol::solve::{Plan, forwarded};
use inlay::protocol::wire::{Edit, Field, WireError, fields, map_entry, rewrite};
use prost::Message;

/// Holds the target's properties against one input.
pub fn check(input: &[u8]) {
    let Some((&[which, length], input)) = input.split_first_chunk() else {
        return;
    };
    let Some((value, message)) = input.split_at_checked(length.into()) else {
        return;
    };
    let fields: Result<Vec<_>, _> = fields(message).collect();
    let fields = match fields {
        Ok(fields) => fields,
        Err(err) => {
            assert!(<()>::decode(message).is_err(), "{err}");
            assert!(Plan::read(message).is_err());
            assert!(with_metadata(message, &HashMap::new()).is_err());
            return;
        }
    };
    <()>::decode(message).expect("fields are fields");
    edits_leave_the_rest(which, value, message, &fields);
    if let Ok(text) = std::str::from_utf8(value)
        && let Ok(request) = SolveRequest::decode(message)
    {
        edits_of_a_request(text, message, &request, &fields);
    }
    if let Ok(result) = gateway::Result::decode(message) {
        edits_of_a_result(value, message, &result, &fields);
    }
    // Imports that stay leave all of it as it was, and other ones leave a message.
    if gateway::SolveRequest::decode(message).is_ok() {
        let kept = in_gateway_solve(message, |_| Verdict::Keep).expect("a message");
        gateway::SolveRequest::decode(&kept.message[..]).expect("a request");
        if kept.unreadable == 0 {
            assert_eq!(kept.message, message);
        }
        let dropped = in_gateway_solve(message, |_| Verdict::Drop).expect("a message");
        gateway::SolveRequest::decode(&dropped.message[..]).expect("a request");
    }
}

/// Of any message: exactly the fields with the number change.
fn edits_leave_the_rest(which: u8, value: &[u8], message: &[u8], fields: &[Field<'_>]) {
    let edited = |number: Option<u32>, edit: &Edit| {
        let edit = |n, _: &[u8]| match number {
            Some(number) if number == n => Ok(edit.clone()),
            _ => Ok::<_, WireError>(Edit::Keep),
        };
        rewrite(message, edit).expect("a message")
    };
    assert_eq!(edited(None, &Edit::Drop), message);
    let Some(&Field { number, .. }) = fields.get(usize::from(which) % fields.len().max(1)) else {
        return;
    };
    let is_edited = |field: &Field<'_>| field.number == number && field.value.is_some();
    let rest = fields.iter().filter(|field| !is_edited(field));
    let rest: Vec<u8> = rest.flat_map(|field| field.raw).copied().collect();
    assert_eq!(edited(Some(number), &Edit::Drop), rest);

    let replaced = edited(Some(number), &Edit::Replace(value.to_vec()));
    let read: Result<Vec<_>, _> = inlay::protocol::wire::fields(&replaced).collect();
    let read = read.expect("a message still");
    assert_eq!(read.len(), fields.len());
    for (before, after) in fields.iter().zip(read) {
        if is_edited(before) {
            assert_eq!((after.number, after.value), (number, Some(value)));
        } else {
            assert_eq!(after, *before);
        }
    }
}

/// Of a request: what prost reads of it has the field changed, and nothing else.
fn edits_of_a_request(text: &str, message: &[u8], request: &SolveRequest, fields: &[Field<'_>]) {
    const REF: u32 = 1;
    const ENTITLEMENTS: u32 = 9;
    const FRONTEND_INPUTS: u32 = 10;
    let count = |number| fields.iter().filter(|field| field.number == number).count();
    let edit = |number, _: &[u8]| {
        Ok::<_, WireError>(match number {
            REF | ENTITLEMENTS => Edit::Replace(text.as_bytes().to_vec()),
            FRONTEND_INPUTS => Edit::Drop,
            _ => Edit::Keep,
        })
    };
    let mut expected = request.clone();
    if count(REF) > 0 {
        expected.r#ref = text.to_owned();
    }
    expected.entitlements = vec![text.to_owned(); count(ENTITLEMENTS)];
    expected.frontend_inputs.clear();
    let edited = rewrite(message, edit).expect("a message");
    assert_eq!(SolveRequest::decode(&edited[..]), Ok(expected));

    let plan = Plan::read(message).expect("a request");
    let mut expected = request.clone();
    let embeds = plan.inline.is_some();
    if let Some(cache) = expected.cache.as_mut().filter(|_| embeds) {
        cache.exports.retain(|export| export.r#type != "inline");
    }
    if plan.direct.is_some() {
        expected.definition = None;
        expected.frontend.clear();
    }
    let request = forwarded(message, embeds, plan.direct.is_some()).expect("a message");
    assert_eq!(SolveRequest::decode(&request[..]), Ok(expected));
}

/// Of a result: its metadata has the values, and all else is as it was.
fn edits_of_a_result(value: &[u8], message: &[u8], result: &gateway::Result, fields: &[Field<'_>]) {
    const METADATA: u32 = 10;
    let images = images(result).unwrap_or_default();
    for image in &images {
        let vertex = vertex(image.definition);
        assert!(
            vertex.is_none() || image.vertex().unwrap_or_default() == vertex.unwrap_or_default()
        );
    }
    for entry in fields.iter().filter(|field| field.number == METADATA) {
        let entry_value = entry.value.expect("prost read it");
        let (key, value) = map_entry(entry_value).expect("prost read it");
        let alone = gateway::Result::decode(entry.raw).expect("prost read it");
        assert_eq!(alone.metadata[&*key], value);
    }
    // A key of its own, or one that is there.
    let mut keys: Vec<_> = result.metadata.keys().cloned().collect();
    keys.sort();
    let key = keys
        .into_iter()
        .next()
        .filter(|_| value.len().is_multiple_of(2));
    let key = key.unwrap_or_else(|| "containerimage.config".to_owned());
    let values = HashMap::from([(key.clone(), value.to_vec())]);
    let edited = with_metadata(message, &values).expect("a message");
    let mut expected = result.clone();
    expected
        .metadata
        .insert(key.clone(), Bytes::copy_from_slice(value));
    assert_eq!(gateway::Result::decode(&edited[..]), Ok(expected));
    let others = fields.iter().filter(|field| {
        field.number != METADATA
            || map_entry(field.value.unwrap_or_default()).expect("read").0 != key
    });
    let others: Vec<u8> = others.flat_map(|field| field.raw).copied().collect();
    assert!(edited.starts_with(&others));
}

/// The digest of the vertex that a definition names as its result, as prost reads it.
fn vertex(definition: &[u8]) -> Option<String> {
    let definition = pb::Definition::decode(definition).ok()?;
    let last = pb::Op::decode(&definition.def.last()?[..]).ok()?;
    Some(last.inputs.into_iter().next()?.digest)
}
