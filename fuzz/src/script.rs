//! An input, read as a script. Every byte string is a valid script, and a few changed bytes make a
//! slightly different one.

/// The part of the script that is left. When nothing is left, every value is 0 or empty.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(input: &'a [u8]) -> Script<'a> {
        Script(input)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next four bytes as a number.
    pub fn number(&mut self) -> u32 {
        self.take(4)
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    /// One of these values.
    pub fn choice<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// Reads a length of up to 255, and then that many bytes.
    pub fn text(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.take(length.into())
    }

    /// Reads a length of up to 65 535, and then that many bytes.
    pub fn long_text(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) << 8 | usize::from(self.byte());
        self.take(length)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
