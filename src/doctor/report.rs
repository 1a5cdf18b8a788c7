//! The results of all checks, a line each, and how they are printed.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::client::text::escaped;
use crate::core::config::{Finding, Severity, findings_json};

/// The results of all checks, in the order of printing.
#[derive(Debug, Default)]
pub struct DoctorReport {
    lines: Vec<ReportLine>,
}

#[derive(Debug)]
struct ReportLine {
    /// The subject of the check, in one word or two.
    area: &'static str,
    told: CheckResult,
}

#[derive(Debug)]
enum CheckResult {
    Well(String),
    Found(Finding),
}

impl DoctorReport {
    /// Records that something is as it should be.
    pub fn well(&mut self, area: &'static str, message: String) {
        self.lines.push(ReportLine {
            area,
            told: CheckResult::Well(message),
        });
    }

    /// Records a finding with its place in a file.
    pub fn finding(&mut self, area: &'static str, finding: Finding) {
        self.lines.push(ReportLine {
            area,
            told: CheckResult::Found(finding),
        });
    }

    /// Records that something does not work. `key` is the configuration key it is about, if any.
    pub fn error(
        &mut self,
        area: &'static str,
        key: &str,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.finding(
            area,
            placeless(Severity::Error, key, message.into(), cure.into()),
        );
    }

    /// Records that something works, but not for ever or not for everybody.
    pub fn warning(
        &mut self,
        area: &'static str,
        key: &str,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.finding(
            area,
            placeless(Severity::Warning, key, message.into(), cure.into()),
        );
    }

    /// Appends another report.
    pub fn append(&mut self, other: DoctorReport) {
        self.lines.extend(other.lines);
    }

    /// Everything that is not well.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.lines.iter().filter_map(|line| match &line.told {
            CheckResult::Found(finding) => Some(finding),
            CheckResult::Well(_) => None,
        })
    }

    /// Whether anything in this area is not well.
    pub fn has_findings(&self, area: &str) -> bool {
        self.lines
            .iter()
            .any(|line| line.area == area && matches!(line.told, CheckResult::Found(_)))
    }

    /// `{"findings": […]}` as `tokend check --json` prints it. A finding without a place has line 0
    /// and column 0.
    pub fn json(&self) -> String {
        let findings: Vec<Finding> = self.findings().cloned().collect();
        findings_json(&findings).to_string()
    }

    /// The report for people: a line for each check, the cure below it, and a total.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for ReportLine { area, told } in &self.lines {
            let (verdict, message) = match told {
                CheckResult::Well(message) => ("ok", message.clone()),
                CheckResult::Found(finding) if finding.line == 0 => {
                    (finding.severity.as_str(), finding.message.clone())
                }
                CheckResult::Found(finding) => {
                    let path = match finding.path.as_str() {
                        "" => String::new(),
                        path => format!(" ({path})"),
                    };
                    (
                        finding.severity.as_str(),
                        format!("{}{path}", finding.one_line()),
                    )
                }
            };
            let _ = writeln!(text, "{verdict:<8} {area}: {}", escaped(&message));
            if let CheckResult::Found(Finding { help, .. }) = told
                && !help.is_empty()
            {
                let _ = writeln!(text, "         help: {}", escaped(help));
            }
        }
        let count = |severity| {
            self.findings()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let _ = match (errors, warnings) {
            (0, 0) => writeln!(text, "\nnothing found"),
            _ => writeln!(
                text,
                "\n{errors} error{}, {warnings} warning{}",
                plural(errors),
                plural(warnings)
            ),
        };
        text
    }
}

fn placeless(severity: Severity, key: &str, message: String, help: String) -> Finding {
    Finding {
        severity,
        path: key.to_owned(),
        file: PathBuf::new(),
        line: 0,
        column: 0,
        width: 1,
        message,
        help,
        profile: None,
        snippet: None,
    }
}

pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_verdict_and_every_finding_its_cure() {
        let mut report = DoctorReport::default();
        report.well("socket", "it is there".into());
        assert!(report.text().ends_with("\nnothing found\n"));
        report.warning("clock", "", "45s \u{1b}[2Jahead", "set it");
        report.finding(
            "configuration",
            Finding {
                file: "/x.toml".into(),
                line: 3,
                column: 1,
                ..placeless(Severity::Error, "server.sockt", "unknown".into(), "".into())
            },
        );
        assert_eq!(
            report.text(),
            "ok       socket: it is there\n\
             warning  clock: 45s \\u{1b}[2Jahead\n         help: set it\n\
             error    configuration: /x.toml:3:1: unknown (server.sockt)\n\n\
             1 error, 1 warning\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(
            json["findings"][0],
            serde_json::json!({"severity": "warning", "path": "", "file": "", "line": 0, "column": 0,
                "message": "45s \u{1b}[2Jahead", "help": "set it"})
        );
        assert_eq!(json["findings"].as_array().map(Vec::len), Some(2));
    }
}
