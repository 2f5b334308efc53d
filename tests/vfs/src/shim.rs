//! The C functions through which SQLite calls: SQLite's own file system, with a disk asked before and told after.
//!
//! Invariants of the unsafe code:
//! - SQLite gives each file `szOsFile` bytes; ours come first and the wrapped file system's follow, so both are
//!   aligned to eight bytes and live until `x_close`.
//! - `handle` is a leaked box from `x_open` until `x_close` and null where no disk watches the file.
//! - A method is called by SQLite on a file that `x_open` opened, by one thread at a time.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::slice;
use std::sync::{Arc, OnceLock};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_io_methods, sqlite3_vfs};

use crate::disk::{self, Call, How, Name, Op, Shared, Verdict};

/// The name under which SQLite knows it.
const NAME: &CStr = c"farshore-faults";

/// Why the file system could not be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallError {
    /// SQLite has no file system that could be wrapped.
    NothingToWrap,
    /// SQLite refused it, with this code.
    Refused(c_int),
}

/// A file as SQLite holds it; the wrapped file system's follows in memory.
#[repr(C)]
struct File {
    base: sqlite3_file,
    handle: *mut Handle,
}

/// What is remembered of a watched file.
struct Handle {
    disk: Arc<Shared>,
    name: Name,
}

/// The wrapped file system, as an address: SQLite keeps it for as long as the process lives.
static WRAPPED: OnceLock<usize> = OnceLock::new();
static INSTALLED: OnceLock<Result<(), InstallError>> = OnceLock::new();

/// Puts this file system in the place of SQLite's own, for the whole process. Repeating it does nothing.
///
/// # Errors
/// [`InstallError`] where SQLite does not take it.
pub fn install() -> Result<(), InstallError> {
    *INSTALLED.get_or_init(|| {
        // SAFETY: a null name asks for the default; SQLite initialises itself.
        let wrapped = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        if wrapped.is_null() {
            return Err(InstallError::NothingToWrap);
        }
        WRAPPED.get_or_init(|| wrapped as usize);
        // SAFETY: SQLite's own file system is a constant of the library, valid to be read and copied.
        let mut ours = unsafe { *wrapped };
        ours.szOsFile += c_int::try_from(size_of::<File>()).expect("two pointers");
        ours.pNext = ptr::null_mut();
        ours.zName = NAME.as_ptr();
        ours.xOpen = Some(x_open);
        ours.xDelete = Some(x_delete);
        let ours: &'static mut sqlite3_vfs = Box::leak(Box::new(ours));
        // SAFETY: `ours` lives as long as the process, and its functions keep to SQLite's interface.
        match unsafe { ffi::sqlite3_vfs_register(ours, 1) } {
            ffi::SQLITE_OK => Ok(()),
            refused => Err(InstallError::Refused(refused)),
        }
    })
}

fn wrapped() -> *mut sqlite3_vfs {
    *WRAPPED.get().expect("SQLite calls after the installation") as *mut sqlite3_vfs
}

/// The wrapped file system's part of a file.
///
/// # Safety
/// `file` is one that `x_open` was given.
unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: `szOsFile` covers both parts, so the address lies within the allocation.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// What is remembered of a file.
///
/// # Safety
/// `file` is open.
unsafe fn handle<'f>(file: *mut sqlite3_file) -> Option<&'f Handle> {
    // SAFETY: `handle` is null or a box that lives until the file is closed.
    unsafe { (*file.cast::<File>()).handle.as_ref() }
}

/// Calls a method of the wrapped file; answers with an error code where it has none.
macro_rules! pass {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: the file is open, so its methods are set and take the wrapped part of the file.
        unsafe {
            let inner = inner($file);
            match (*(*inner).pMethods).$method {
                Some(method) => method(inner $(, $argument)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    }};
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Version 2 has the shared memory of the log; version 3 would map the file past `x_read` and `x_write`.
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The path that SQLite names; `None` for a temporary file.
///
/// # Safety
/// `name` is null or a C string.
unsafe fn path_of<'n>(name: *const c_char) -> Option<&'n Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller says so.
    let name = unsafe { CStr::from_ptr(name) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())))
}

unsafe extern "C" fn x_open(
    _vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite names a file with a C string, or not at all.
    let path = unsafe { path_of(name.cast()) };
    let watched = path.and_then(disk::disk_of);
    let was_there = watched.as_ref().is_some_and(|(disk, name)| disk.exists(name));
    let vfs = wrapped();
    // SAFETY: the arguments are SQLite's own, but for the file: its second part is the wrapped file system's.
    let code = unsafe {
        (*file).pMethods = ptr::null();
        (*file.cast::<File>()).handle = ptr::null_mut();
        match (*vfs).xOpen {
            Some(open) => open(vfs, name, inner(file), flags, out_flags),
            None => ffi::SQLITE_CANTOPEN,
        }
    };
    if code != ffi::SQLITE_OK {
        return code;
    }
    if let Some((disk, name)) = watched {
        if !was_there {
            disk.note(Op::Create(Arc::clone(&name)));
            disk.leave(&name);
        }
        let handle = Box::into_raw(Box::new(Handle { disk, name }));
        // SAFETY: the file was given to be opened, so it may be written.
        unsafe { (*file.cast::<File>()).handle = handle };
    }
    // SAFETY: as above; from here on SQLite calls the methods.
    unsafe { (*file).pMethods = &raw const METHODS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_delete(_vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let vfs = wrapped();
    // SAFETY: SQLite's own arguments, handed on to the file system that it would have called.
    let (path, code) = unsafe {
        let code = match (*vfs).xDelete {
            Some(delete) => delete(vfs, name, sync),
            None => ffi::SQLITE_IOERR_DELETE,
        };
        (path_of(name), code)
    };
    if code == ffi::SQLITE_OK
        && let Some((disk, file)) = path.and_then(disk::disk_of)
    {
        disk.note(Op::Remove { file, durable: sync != 0 });
    }
    code
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    let code = pass!(file, xClose);
    // SAFETY: the box was leaked in `x_open`, and nobody uses the file any more.
    unsafe {
        let handle = ptr::replace(&raw mut (*file.cast::<File>()).handle, ptr::null_mut());
        if !handle.is_null() {
            drop(Box::from_raw(handle));
        }
    }
    code
}

unsafe extern "C" fn x_read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open.
    if let Some(handle) = unsafe { handle(file) }
        && handle.disk.call(Call::Read) != Verdict::Goes
    {
        return ffi::SQLITE_IOERR_READ;
    }
    pass!(file, xRead, into, length, offset)
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    from: *const c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open.
    let Some(handle) = (unsafe { handle(file) }) else {
        return pass!(file, xWrite, from, length, offset);
    };
    let _alone = handle.disk.look_at(&handle.name);
    let (written, answer) = match handle.disk.call(Call::Write) {
        Verdict::Goes => (length, ffi::SQLITE_OK),
        Verdict::Fails(How::IoError) => return ffi::SQLITE_IOERR_WRITE,
        Verdict::Fails(How::Full) => return ffi::SQLITE_FULL,
        Verdict::Fails(How::Short) => (length / 2, ffi::SQLITE_FULL),
    };
    let code = pass!(file, xWrite, from, written, offset);
    if code == ffi::SQLITE_OK
        && let (Ok(length), Ok(offset)) = (usize::try_from(written), u64::try_from(offset))
    {
        // SAFETY: SQLite hands over at least `length` bytes, and `written` is not more.
        let bytes = unsafe { slice::from_raw_parts(from.cast::<u8>(), length) };
        let file = Arc::clone(&handle.name);
        handle.disk.note(Op::Write { file, offset, bytes: bytes.into() });
        handle.disk.leave(&handle.name);
    }
    if code == ffi::SQLITE_OK { answer } else { code }
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    let _alone = handle.and_then(|handle| handle.disk.look_at(&handle.name));
    if let Some(handle) = handle
        && handle.disk.call(Call::Truncate) != Verdict::Goes
    {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    let code = pass!(file, xTruncate, size);
    if code == ffi::SQLITE_OK
        && let (Some(handle), Ok(bytes)) = (handle, u64::try_from(size))
    {
        handle.disk.note(Op::Truncate { file: Arc::clone(&handle.name), bytes });
        handle.disk.leave(&handle.name);
    }
    code
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let Some(handle) = (unsafe { handle(file) }) else { return pass!(file, xSync, flags) };
    let name = Arc::clone(&handle.name);
    let _alone = handle.disk.look_at(&name);
    if handle.disk.call(Call::Sync) != Verdict::Goes {
        handle.disk.note(Op::SyncFailed(name));
        return ffi::SQLITE_IOERR_FSYNC;
    }
    let code = if handle.disk.syncs() { pass!(file, xSync, flags) } else { ffi::SQLITE_OK };
    if code == ffi::SQLITE_OK {
        handle.disk.note(Op::Sync(name));
    }
    code
}

unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    pass!(file, xFileSize, size)
}

unsafe extern "C" fn x_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, xLock, level)
}

unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock, level)
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut sqlite3_file, answer: *mut c_int) -> c_int {
    pass!(file, xCheckReservedLock, answer)
}

unsafe extern "C" fn x_file_control(
    file: *mut sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    pass!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn x_sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(file, xSectorSize)
}

unsafe extern "C" fn x_device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn x_shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    address: *mut *mut c_void,
) -> c_int {
    pass!(file, xShmMap, region, size, extend, address)
}

unsafe extern "C" fn x_shm_lock(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    pass!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn x_shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: the file is open, so its methods are set and take the wrapped part of the file.
    unsafe {
        let inner = inner(file);
        if let Some(barrier) = (*(*inner).pMethods).xShmBarrier {
            barrier(inner);
        }
    }
}

unsafe extern "C" fn x_shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass!(file, xShmUnmap, delete)
}
