//! What a frame of the write-ahead log holds: a tenant's name, the ids by which its records are known when they come
//! again, how far their sources were kept with them, and a batch as an Arrow IPC stream, lz4-compressed.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::Error;
use super::repeats::{BatchId, Brought, ID_BYTES};
use super::sources::Reached;
use crate::record::{Tenant, batch, column};

/// Stands in the length of the tenant's name when ids follow it; frames without ids are as they always were.
const HAS_IDS: u8 = 0x80;
/// Stands in the count of ids when sources follow them.
const HAS_SOURCES: u32 = 1 << 31;

/// A frame's payload: length and bytes of the tenant's name; where there are ids or sources, how many ids (`u32`) and
/// they, how many sources (`u16`) and they; the batch.
pub(super) fn encode(tenant: &Tenant, brought: &Brought, batch: &RecordBatch) -> Result<Vec<u8>, Error> {
    let name = tenant.as_str().as_bytes();
    let mut payload = Vec::with_capacity(1 + name.len() + batch.get_array_memory_size() / 2);
    let length =
        u8::try_from(name.len()).ok().filter(|length| length & HAS_IDS == 0).expect("a tenant's name is short");
    let Brought { ids, reached } = brought;
    let is_bare = ids.is_empty() && reached.is_empty();
    payload.push(if is_bare { length } else { length | HAS_IDS });
    payload.extend_from_slice(name);
    if !is_bare {
        let count = u32::try_from(ids.len()).expect("a request's size is limited");
        let count = if reached.is_empty() { count } else { count | HAS_SOURCES };
        payload.extend_from_slice(&count.to_le_bytes());
        ids.iter().for_each(|id| payload.extend_from_slice(&id.to_bytes()));
    }
    if !reached.is_empty() {
        let count = u16::try_from(reached.len()).expect("an append has no more sources than a group has partitions");
        payload.extend_from_slice(&count.to_le_bytes());
        for one in reached {
            let length = u16::try_from(one.source().len()).expect("a source's name is cut");
            payload.extend_from_slice(&length.to_le_bytes());
            payload.extend_from_slice(one.source().as_bytes());
            payload.extend_from_slice(&one.next.to_le_bytes());
        }
    }
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(&mut payload, &batch.schema(), options)?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(payload)
}

/// The reverse of [`encode`].
pub(super) fn decode(payload: &[u8]) -> Result<Decoded, Error> {
    let damaged = |what: &str| Error::Frame(what.to_owned());
    let (length, rest) = payload.split_first().ok_or_else(|| damaged("it is empty"))?;
    let name_bytes = usize::from(length & !HAS_IDS);
    let (name, mut ipc) = rest.split_at_checked(name_bytes).ok_or_else(|| damaged("the tenant is cut"))?;
    let mut brought = Brought::default();
    if length & HAS_IDS != 0 {
        let (count, rest) = ipc.split_first_chunk::<4>().ok_or_else(|| damaged("the ids are cut"))?;
        let count = u32::from_le_bytes(*count);
        let bytes = ((count & !HAS_SOURCES) as usize).saturating_mul(ID_BYTES);
        let (found, rest) = rest.split_at_checked(bytes).ok_or_else(|| damaged("the ids are cut"))?;
        brought.ids.extend(BatchId::read(found));
        ipc = rest;
        if count & HAS_SOURCES != 0 {
            (brought.reached, ipc) = sources(ipc).ok_or_else(|| damaged("the sources are cut"))?;
        }
    }
    let tenant = std::str::from_utf8(name).ok().and_then(Tenant::parse).ok_or_else(|| damaged("no such tenant"))?;
    let mut reader = StreamReader::try_new(Cursor::new(ipc), None)?;
    let batch = reader.next().ok_or_else(|| damaged("it holds no batch"))??;
    Ok(Decoded { tenant, brought, batch: with_shape_dictionary(batch)? })
}

/// The sources at the start of some bytes, and what follows them.
fn sources(bytes: &[u8]) -> Option<(Vec<Reached>, &[u8])> {
    let (count, mut rest) = bytes.split_first_chunk::<2>()?;
    let mut found = Vec::new();
    for _ in 0..u16::from_le_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (source, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (next, after) = after.split_first_chunk::<8>()?;
        found.push(Reached::new(std::str::from_utf8(source).ok()?, i64::from_le_bytes(*next)));
        rest = after;
    }
    Some((found, rest))
}

/// What a frame held.
#[derive(Debug, PartialEq)]
pub(super) struct Decoded {
    pub tenant: Tenant,
    pub brought: Brought,
    pub batch: RecordBatch,
}

/// Frames of quiver 0.1 have a shape's text for every record.
fn with_shape_dictionary(batch: RecordBatch) -> Result<RecordBatch, Error> {
    match batch.column_by_name(column::SHAPE) {
        Some(shapes) if *shapes.data_type() != batch::shape_type() => {
            Ok(batch::conform(&batch, &batch::unified_schema(&[batch.schema()]))?)
        }
        _ => Ok(batch),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::decode::{Options, jsonline};
    use crate::record::shape;

    const LINES: &str = "{\"level\":\"info\",\"n\":1}\nplain text\nlevel=warn n=2\n{\"level\":\"info\",\"n\":3}";

    fn decoded() -> RecordBatch {
        jsonline::text(LINES.as_bytes(), &Options::default(), 0).unwrap().batch
    }

    #[test]
    fn a_frame_gives_its_batch_back() {
        let (tenant, batch) = (Tenant::default_tenant(), decoded());
        let ids = || vec![BatchId::of(&[b"a"]), BatchId::of(&[b"b"])];
        let reached = || vec![Reached::new("kafka/g/logs/0", 7), Reached::new("kafka/g/logs/1", i64::MAX)];
        for brought in [
            Brought::default(),
            Brought { ids: ids(), ..Brought::default() },
            Brought { reached: reached(), ..Brought::default() },
            Brought { ids: ids(), reached: reached() },
        ] {
            let payload = encode(&tenant, &brought, &batch).unwrap();
            let (tenant, batch) = (tenant.clone(), batch.clone());
            assert_eq!(decode(&payload).unwrap(), Decoded { tenant, brought, batch });
            for cut in 0..payload.len() {
                assert!(decode(&payload[..cut]).is_err() || cut + 8 >= payload.len(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_frame_with_a_shape_in_every_record_is_read() {
        let batch = decoded();
        let texts = |field: &Arc<Field>, array: &ArrayRef| match field.name().as_str() {
            column::SHAPE => (
                Arc::new(Field::new(column::SHAPE, DataType::Utf8, true)),
                arrow::compute::cast(array, &DataType::Utf8).unwrap(),
            ),
            _ => (field.clone(), array.clone()),
        };
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        let (fields, columns): (Vec<_>, Vec<_>) = columns.map(|(field, array)| texts(field, array)).unzip();
        let old = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let read = decode(&encode(&Tenant::default_tenant(), &Brought::default(), &old).unwrap()).unwrap().batch;
        assert_eq!(read.schema(), batch.schema());
        let shapes = read.column_by_name(column::SHAPE).unwrap().as_dictionary::<arrow::datatypes::Int32Type>();
        assert_eq!((shapes.values().len(), shapes.null_count()), (2, 1));
        let lines = shape::render_lines(&read).unwrap();
        assert_eq!(lines.iter().flatten().collect::<Vec<_>>().join("\n"), LINES);
    }
}
