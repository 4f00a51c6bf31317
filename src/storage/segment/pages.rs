//! Unpacked pages of segments, kept while they are asked for: what dashboards read again and again is neither read from
//! the disk, compared with its checksum, nor unpacked twice. It is bounded by bytes, and a long scan does not push out
//! what is hot (quick_cache's S3-FIFO).

use std::sync::Arc;

use parquet::arrow::arrow_reader::RowGroups;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::open::SharedFile;

/// What an entry costs beside its bytes.
const ENTRY_BYTES: u64 = 160;
/// About the size of a page, unpacked: what the cache expects.
const PAGE_BYTES: u64 = 16 << 10;

/// A page by its segment and its place in the file.
type Place = (i64, u64);

/// Unpacked pages of all segments of a store.
#[derive(Debug)]
pub struct PageCache {
    pages: Cache<Place, Page, Bytes>,
    hits: Counter,
    misses: Counter,
    bytes: Gauge,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Place, Page> for Bytes {
    fn weight(&self, _: &Place, page: &Page) -> u64 {
        page.buffer().len() as u64 + ENTRY_BYTES
    }
}

impl PageCache {
    /// An empty cache of at most so many bytes.
    pub fn new(bytes_max: usize) -> PageCache {
        let bytes_max = bytes_max as u64;
        let pages = Cache::with_weighter((bytes_max / PAGE_BYTES) as usize, bytes_max, Bytes);
        PageCache { pages, hits: Counter::default(), misses: Counter::default(), bytes: Gauge::default() }
    }

    /// Registers the cache's metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("page_cache_hits", "Pages that were found unpacked", self.hits.clone());
        registry.register("page_cache_misses", "Pages that were read and unpacked", self.misses.clone());
        registry.register_with_unit("page_cache", "Unpacked pages kept", Unit::Bytes, self.bytes.clone());
    }

    fn get(&self, place: &Place) -> Option<Page> {
        let found = self.pages.get(place);
        if found.is_some() {
            self.hits.inc()
        } else {
            self.misses.inc()
        };
        found
    }

    fn keep(&self, place: Place, page: Page) {
        self.pages.insert(place, page);
        self.bytes.set(self.pages.weight() as i64);
    }
}

/// One row group of a segment, whose pages come from the cache where they are in it.
pub(super) struct CachedRowGroup {
    pub cache: Arc<PageCache>,
    pub segment: i64,
    pub file: Arc<SharedFile>,
    pub metadata: Arc<ParquetMetaData>,
    pub row_group: usize,
}

impl CachedRowGroup {
    fn group(&self) -> &RowGroupMetaData {
        self.metadata.row_group(self.row_group)
    }
}

impl RowGroups for CachedRowGroup {
    fn num_rows(&self) -> usize {
        self.group().num_rows() as usize
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let chunk = self.group().column(column);
        let pages = self.metadata.offset_index().and_then(|index| index.get(self.row_group)?.get(column));
        let Some(pages) = pages.map(|pages| pages.page_locations()).filter(|pages| !pages.is_empty()) else {
            return Err(ParquetError::General("the footer does not say where pages lie".into()));
        };
        let rows = self.num_rows();
        // What lies before the first page is the dictionary.
        let (start, first) = (chunk.byte_range().0, pages[0].offset as u64);
        let reader = CachedPages {
            cache: self.cache.clone(),
            segment: self.segment,
            dictionary: (start < first).then_some(start),
            pages: pages.clone(),
            rows,
            next: 0,
            file: self.file.clone(),
            metadata: self.metadata.clone(),
            row_group: self.row_group,
            column,
            unpacking: None,
        };
        Ok(Box::new(OneChunk(Some(Box::new(reader)))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.group()))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The pages of one column of one row group.
struct OneChunk(Option<Box<CachedPages>>);

impl Iterator for OneChunk {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|pages| Ok(pages as _))
    }
}

impl PageIterator for OneChunk {}

struct CachedPages {
    cache: Arc<PageCache>,
    segment: i64,
    /// Where the dictionary lies, which comes before the first page.
    dictionary: Option<u64>,
    pages: Vec<PageLocation>,
    rows: usize,
    /// The dictionary, if there is one, is number 0.
    next: usize,
    file: Arc<SharedFile>,
    metadata: Arc<ParquetMetaData>,
    row_group: usize,
    column: usize,
    /// Parquet's own reader, and the number of the page it gives next; made when a page is missing.
    unpacking: Option<(SerializedPageReader<SharedFile>, usize)>,
}

impl CachedPages {
    /// Number `next` among the data pages; `None`: the dictionary.
    fn data_page(&self, number: usize) -> Option<usize> {
        if self.dictionary.is_some() { number.checked_sub(1) } else { Some(number) }
    }

    /// Where the next page lies; `None` at the end.
    fn place(&self) -> Option<u64> {
        match self.data_page(self.next) {
            None => self.dictionary,
            Some(page) => self.pages.get(page).map(|page| page.offset as u64),
        }
    }

    fn unpack(&mut self) -> Result<Option<Page>> {
        let (reader, at) = match &mut self.unpacking {
            Some(unpacking) => unpacking,
            None => {
                let chunk = self.metadata.row_group(self.row_group).column(self.column);
                let pages = Some(self.pages.clone());
                let reader = SerializedPageReader::new(self.file.clone(), chunk, self.rows, pages)?;
                self.unpacking.insert((reader, 0))
            }
        };
        while *at < self.next {
            reader.skip_next_page()?;
            *at += 1;
        }
        *at += 1;
        reader.get_next_page()
    }
}

impl Iterator for CachedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CachedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(place) = self.place() else { return Ok(None) };
        let key = (self.segment, place);
        let page = match self.cache.get(&key) {
            Some(page) => page,
            None => {
                let Some(page) = self.unpack()? else { return Ok(None) };
                self.cache.keep(key, page.clone());
                page
            }
        };
        self.next += 1;
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        let Some(page) = self.data_page(self.next) else {
            return Ok(Some(PageMetadata { num_rows: None, num_levels: None, is_dict: true }));
        };
        let Some(here) = self.pages.get(page) else { return Ok(None) };
        let end = self.pages.get(page + 1).map_or(self.rows as i64, |next| next.first_row_index);
        let rows = (end - here.first_row_index) as usize;
        Ok(Some(PageMetadata { num_rows: Some(rows), num_levels: None, is_dict: false }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.next += 1;
        Ok(())
    }
}
