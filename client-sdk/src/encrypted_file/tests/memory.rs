//! No key stays behind: the memory of this process, searched.

use std::os::unix::fs::FileExt as _;

use super::*;

const MASK: u8 = 0x5a;

/// A secret to look for, kept in another form so that the search does not find itself.
struct Needle(Vec<u8>);

impl Needle {
    fn new(secret: &[u8]) -> Self {
        Self(secret.iter().map(|byte| byte ^ MASK).collect())
    }

    fn is_at(&self, memory: &[u8]) -> bool {
        memory[0] == self.0[0] ^ MASK
            && memory.iter().zip(&self.0).all(|(byte, masked)| byte ^ MASK == *masked)
    }

    /// How often the secret is in the writable memory of this process.
    fn count(&self) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let mut copy = Zeroizing::new(Vec::new());
        maps.lines()
            .filter_map(|line| line.split_once(" rw"))
            .map(|(range, _)| {
                let (start, end) = range.split_once('-').unwrap();
                let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
                copy.clear();
                copy.resize(usize::try_from(end - start).unwrap(), 0);
                // The stack's guard pages and what was unmapped meanwhile cannot be read.
                let readable = memory.read_exact_at(&mut copy, start).is_ok();
                let windows = copy.windows(self.0.len());
                if readable { windows.filter(|window| self.is_at(window)).count() } else { 0 }
            })
            .sum()
    }
}

#[test]
fn no_key_stays_in_memory_after_use() {
    if reexec::inside().is_none() {
        reexec::run_passing(
            "encrypted_file::tests::memory::no_key_stays_in_memory_after_use",
            &["env"],
            "1",
            &[],
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (path, vault) = (directory.path().join("store.db"), SealedFile::new(directory.path()));
    let key = create(&path, &vault, &label(), store_id()).unwrap();
    let hexadecimal = |bytes: &[u8]| {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        HEXLOWER.encode_append(bytes, &mut text);
        text
    };
    let raw = Needle::new(key.data_key.as_bytes());
    let written = Needle::new(hexadecimal(key.data_key.as_bytes()).as_bytes());
    let vault_text = Zeroizing::new(fs::read(vault.path_of(&label())).unwrap());
    let vault_hex = &vault_text["farshore-vault-key:1:".len()..][..2 * KEY_BYTES];
    let vault_written = Needle::new(vault_hex);
    let vault_raw = Needle::new(&Zeroizing::new(HEXLOWER.decode(vault_hex).unwrap()));
    drop(vault_text);

    let connection = open(&path, &key, OpenMode::ReadWrite).unwrap();
    write_rows(&connection).unwrap();
    assert!(raw.count() > 0, "the search finds a key that is there");
    assert_eq!((vault_raw.count(), vault_written.count()), (0, 0));
    drop((connection, key));
    assert_eq!((raw.count(), written.count()), (0, 0));
}
