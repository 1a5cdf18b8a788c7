//! Random numbers from a seed. The same seed gives the same life, so a simulation can be replayed.

/// SplitMix64. It spreads load and keeps no secret.
#[derive(Debug)]
pub struct Draws(u64);

impl Draws {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Draws {
        Draws(seed)
    }

    /// The next number in [0, 1).
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper 53 bits fill a double exactly.
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}
