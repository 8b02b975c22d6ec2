//! Temporary files: under names that nobody can guess, removed whatever ends the process.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The temporary files of this process. They are created, renamed and removed under the lock, so that
/// whoever holds it knows all of them.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

const SUFFIX: &str = ".bertlet-tmp";

/// The name of a temporary file, up to its random digits. Part of a long name is enough: the whole could
/// be too long for the file system.
fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let part: String = name.chars().take(50).collect();
    format!(".{part}.")
}

/// A temporary file in the folder of its target. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Temporary {
    /// Empty once the file has its name.
    path: PathBuf,
}

impl Temporary {
    /// Creates a file for `target`, after removing those that killed processes left for it. A `private`
    /// file is for its owner alone.
    pub(super) fn create(target: &Path, private: bool) -> io::Result<(File, Self)> {
        let prefix = prefix(target);
        sweep(target, &prefix);
        let mut how = OpenOptions::new();
        // Nobody else's file or link is opened, whatever its name. Readable, as parts may be read again.
        how.read(true).write(true).create_new(true);
        #[cfg(unix)]
        if private {
            std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
        }
        #[cfg(not(unix))]
        let _ = private;
        loop {
            let random = RandomState::new().build_hasher().finish();
            let path = target.with_file_name(format!("{prefix}{random:016x}{SUFFIX}"));
            let mut live = live();
            match how.open(&path) {
                Ok(file) => {
                    live.push(path.clone());
                    drop(live);
                    let temporary = Self { path };
                    if temporary.claim(&file) {
                        return Ok((file, temporary));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Locks the file for as long as it is open, which tells [`sweep`] that it is in use. False where
    /// another process swept it before.
    #[cfg(unix)]
    fn claim(&self, file: &File) -> bool {
        // Some file systems have no locks. Nothing is swept there.
        !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) && is_at(file, &self.path)
    }

    #[cfg(not(unix))]
    fn claim(&self, _: &File) -> bool {
        true
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name.
    pub(super) fn rename(mut self, target: &Path) -> io::Result<()> {
        let mut live = live();
        fs::rename(&self.path, target)?;
        live.retain(|path| *path != self.path);
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let mut live = live();
            // Whoever dropped the file has an error of their own to report.
            let _ = fs::remove_file(&self.path);
            live.retain(|path| *path != self.path);
        }
    }
}

/// Whether `path` still names this file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |about: fs::Metadata| (about.dev(), about.ino());
    let (file, path) = (file.metadata().map(place), fs::symlink_metadata(path).map(place));
    matches!((file, path), (Ok(file), Ok(path)) if file == path)
}

/// Removes the temporary files for `target` that no process holds: those of killed ones.
#[cfg(unix)]
fn sweep(target: &Path, prefix: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let Ok(entries) = fs::read_dir(folder(target)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| {
            name.strip_prefix(prefix)?.strip_suffix(SUFFIX).filter(|digits| digits.len() == 16)
        });
        let ours = random.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let mut how = OpenOptions::new();
        how.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let path = entry.path();
        if let Ok(file) = how.open(&path)
            && file.try_lock().is_ok()
            && is_at(&file, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(not(unix))]
fn sweep(_: &Path, _: &str) {}

/// The folder that `path` lies in.
pub(super) fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// See [`AtomicFile::remove_on_signals`](super::AtomicFile::remove_on_signals).
#[cfg(unix)]
#[allow(unsafe_code)]
pub(super) fn remove_on_signals() {
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};

    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: each call gets pointers to memory of the right type. `sigemptyset` initialises the set, and
    // `sigaction` the action where it returns 0. Ignoring a signal runs no code.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let mut action = MaybeUninit::<libc::sigaction>::uninit();
            // What the caller ignores, as nohup does, stays ignored.
            if libc::sigaction(signal, null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_DFL
            {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
        }
        // A file that grows beyond `ulimit -f` becomes an error of `write`.
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), null_mut());
        set.assume_init()
    };
    let wait = move || {
        let mut signal = 0;
        // SAFETY: the set is initialised, and the number is an integer's memory.
        if unsafe { libc::sigwait(&set, &mut signal) } != 0 {
            return;
        }
        // Held until the end, so that no file is created after this.
        let live = live();
        for path in live.iter() {
            let _ = fs::remove_file(path);
        }
        // SAFETY: the set is initialised. The signal has its default action, which ends the process.
        unsafe {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null_mut());
            libc::raise(signal);
        }
    };
    let thread = std::thread::Builder::new().name("signals".into()).stack_size(1 << 16);
    if thread.spawn(wait).is_err() {
        // SAFETY: the set is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null_mut()) };
    }
}

#[cfg(not(unix))]
pub(super) fn remove_on_signals() {}
