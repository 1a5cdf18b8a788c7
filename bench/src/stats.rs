//! Medians and their confidence intervals.

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile, by linear interpolation.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = q * (sorted.len() as f64 - 1.0);
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// The median of paired ratios, and the 95 % interval of that median.
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Ratio {
    /// Pairs the values of the same round. The interval is that of the sign test: it uses order
    /// statistics and assumes nothing about the distribution.
    pub fn of(these: &[f64], those: &[f64]) -> Ratio {
        let mut ratios: Vec<f64> = these.iter().zip(those).map(|(a, b)| a / b).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let n = ratios.len();
        // The largest k with P(Binomial(n, 1/2) < k) <= 2.5 %.
        let mut tail = 0.0;
        let mut term = 0.5_f64.powi(n as i32);
        let mut k = 0;
        while tail + term <= 0.025 {
            tail += term;
            k += 1;
            term *= (n - k + 1) as f64 / k as f64;
        }
        let k = k.saturating_sub(1);
        Ratio {
            median: median(&ratios),
            low: ratios[k],
            high: ratios[n - 1 - k],
        }
    }
}

/// Prints one line of a table: name, both sides in their unit, ratio, interval, goal.
pub fn line(what: &str, unit: &str, ours: &[f64], control: &[f64], goal: &str) {
    let ratio = Ratio::of(ours, control);
    println!(
        "{what:<44} {:>10.1} {:>10.1} {unit:<8} {:>6.3}  [{:.3}, {:.3}]  goal {goal}",
        median(ours),
        median(control),
        ratio.median,
        ratio.low,
        ratio.high
    );
}

/// Prints the head of a table.
pub fn head(ours: &str, control: &str) {
    println!(
        "{:<44} {ours:>10} {control:>10} {:<8} {:>6}  95 % interval",
        "", "", "ratio"
    );
}
