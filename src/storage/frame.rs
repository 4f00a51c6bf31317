//! What a frame of the write-ahead log holds: a tenant's name and a batch as an Arrow IPC stream, lz4-compressed.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::Error;
use crate::record::Tenant;

/// A frame's payload: length and bytes of the tenant's name, then the batch.
pub(super) fn encode(tenant: &Tenant, batch: &RecordBatch) -> Result<Vec<u8>, Error> {
    let name = tenant.as_str().as_bytes();
    let mut payload = Vec::with_capacity(1 + name.len() + batch.get_array_memory_size() / 2);
    payload.push(u8::try_from(name.len()).expect("a tenant's name is short"));
    payload.extend_from_slice(name);
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(&mut payload, &batch.schema(), options)?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(payload)
}

/// The reverse of [`encode`].
pub(super) fn decode(payload: &[u8]) -> Result<(Tenant, RecordBatch), Error> {
    let damaged = |what: &str| Error::Frame(what.to_owned());
    let (length, rest) = payload.split_first().ok_or_else(|| damaged("it is empty"))?;
    let (name, ipc) = rest.split_at_checked(usize::from(*length)).ok_or_else(|| damaged("the tenant is cut"))?;
    let tenant = std::str::from_utf8(name).ok().and_then(Tenant::parse).ok_or_else(|| damaged("no such tenant"))?;
    let mut reader = StreamReader::try_new(Cursor::new(ipc), None)?;
    let batch = reader.next().ok_or_else(|| damaged("it holds no batch"))??;
    Ok((tenant, batch))
}
