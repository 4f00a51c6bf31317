//! Unix sockets: bound over what an earlier run left, and open to every local process, as /dev/log is.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::Path;

use tokio::net::{UnixDatagram, UnixListener};

use super::Error;

/// Everybody may write: who reaches the path is decided by its directory.
const MODE: u32 = 0o666;

/// Why a socket could not be bound.
pub(super) fn failed(flag: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Bind { flag, address: path.display().to_string(), source }
}

/// Binds a socket for datagrams.
pub(super) fn bind_datagram(path: &Path) -> io::Result<UnixDatagram> {
    let is_served = || net::UnixDatagram::unbound().and_then(|socket| socket.connect(path)).is_ok();
    bind(path, is_served, || UnixDatagram::bind(path))
}

/// Binds a socket for streams.
pub(super) fn bind_stream(path: &Path) -> io::Result<UnixListener> {
    bind(path, || net::UnixStream::connect(path).is_ok(), || UnixListener::bind(path))
}

fn bind<S>(path: &Path, is_served: impl Fn() -> bool, open: impl Fn() -> io::Result<S>) -> io::Result<S> {
    let socket = match open() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            if !is_socket || is_served() {
                return Err(error);
            }
            fs::remove_file(path)?;
            open()?
        }
        opened => opened?,
    };
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_is_taken_over_when_nobody_serves_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let first = bind_stream(&path).unwrap();
        assert_eq!(bind_stream(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let _second = bind_stream(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let path = dir.path().join("datagrams");
        let first = bind_datagram(&path).unwrap();
        assert!(bind_datagram(&path).is_err());
        drop(first);
        bind_datagram(&path).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(bind_stream(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
