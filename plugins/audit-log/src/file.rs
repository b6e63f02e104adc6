//! A file that is appended to and rotates.
//!
//! Two instances may share it for a moment, around a reload: lines are appended whole, and a file
//! that is no longer where it was is opened anew rather than rotated again.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Readable by the gateway's user alone.
const MODE: u32 = 0o600;

#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    fsync: bool,
    file: File,
    /// The last write ended somewhere within a line.
    torn: bool,
}

impl LogFile {
    pub(crate) fn open(path: &Path, max_bytes: u64, keep: u32, fsync: bool) -> io::Result<Self> {
        let file = append(path)?;
        Ok(Self { path: path.to_owned(), max_bytes, keep, fsync, file, torn: false })
    }

    /// Appends whole lines.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let size = self.current()?.len();
        if size > 0 && size.saturating_add(lines.len() as u64) > self.max_bytes {
            self.rotate()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.torn = false;
        if self.fsync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// What is known of the file at the path, after opening it anew where it is another one.
    fn current(&mut self) -> io::Result<Metadata> {
        let ours = self.file.metadata()?;
        let same = |there: &Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
        if fs::metadata(&self.path).is_ok_and(|there| same(&there)) {
            return Ok(ours);
        }
        self.file = append(&self.path)?;
        self.torn = false;
        self.file.metadata()
    }

    /// `path.4` becomes `path.5`, and so on, and `path` becomes `path.1`.
    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for nth in (1..self.keep).rev() {
                absent_is_fine(fs::rename(self.numbered(nth), self.numbered(nth + 1)))?;
            }
            fs::rename(&self.path, self.numbered(1))?;
        }
        self.file = append(&self.path)?;
        self.torn = false;
        Ok(())
    }

    fn numbered(&self, nth: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{nth}"));
        path.into()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(path: impl AsRef<Path>) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn files_rotate_by_size_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, 4, 2, true).unwrap();
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"] {
            file.append(line.as_bytes()).unwrap();
        }
        assert_eq!(read(&path), "7\n");
        assert_eq!(read(folder.path().join("log.1")), "5\n6\n");
        assert_eq!(read(folder.path().join("log.2")), "3\n4\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_kept_where_that_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, 2, 0, false).unwrap();
        file.append(b"1\n").unwrap();
        file.append(b"2\n").unwrap();
        assert_eq!((read(&path), fs::read_dir(folder.path()).unwrap().count()), ("2\n".into(), 1));
    }

    #[test]
    fn what_was_there_stays_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "old\n").unwrap();
        LogFile::open(&path, 100, 1, false).unwrap().append(b"new\n").unwrap();
        assert_eq!(read(&path), "old\nnew\n");
        LogFile::open(&path, 8, 1, false).unwrap().append(b"x\n").unwrap();
        assert_eq!(read(folder.path().join("log.1")), "old\nnew\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
        let mut file = LogFile::open(&path, 100, 1, false).unwrap();
        file.append(b"1\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.append(b"2\n").unwrap();
        assert_eq!((read(&path), read(&moved)), ("2\n".into(), "1\n".into()));
    }

    #[test]
    fn two_writers_rotate_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writers = [(); 2].map(|()| LogFile::open(&path, 4, 5, false).unwrap());
        for _ in 0..2 {
            for writer in &mut writers {
                writer.append(b"x\n").unwrap();
            }
        }
        assert_eq!(read(&path), "x\nx\n");
        assert_eq!(read(folder.path().join("log.1")), "x\nx\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
