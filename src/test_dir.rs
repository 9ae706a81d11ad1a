//! A temporary directory for unit tests, removed when it goes out of scope.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An empty directory of its own for one test.
pub struct TestDir(PathBuf);

impl TestDir {
    /// Makes the directory below the system's temporary directory.
    pub fn new() -> TestDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("prosody-entrypoint-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        TestDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Sets the permission bits of a file.
    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // A test that fails leaves its directory where it cannot be removed; that must not hide why it failed.
        let _ = fs::remove_dir_all(&self.0);
    }
}
