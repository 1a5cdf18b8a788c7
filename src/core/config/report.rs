//! Collects problems while files are read: the place of each problem, who is hurt, and what may be
//! shown of its line.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::finding::printable;
use super::spot::{Owner, Span, Spot};
use super::{Finding, Severity, schema};

/// A problem that becomes a [`Finding`].
#[derive(Debug)]
pub(super) struct ConfigProblem {
    pub severity: Severity,
    pub spot: Spot,
    pub message: String,
    pub help: String,
    /// Dropped if the file has syntax errors. A key that seems to be missing may then just be lost,
    /// and a text that looks like a name may be a piece of a secret.
    if_whole: bool,
}

impl ConfigProblem {
    /// Adds advice.
    pub fn help(&mut self, text: impl Into<String>) -> &mut ConfigProblem {
        self.help = text.into();
        self
    }

    /// Reports the problem only if the file has no syntax errors.
    pub fn if_whole(&mut self) -> &mut ConfigProblem {
        self.if_whole = true;
        self
    }
}

/// A file, with what is needed to name places in it and to keep secrets out of shown lines.
struct SourceText {
    path: PathBuf,
    text: String,
    line_starts: Vec<usize>,
    /// Lines that touch one of these ranges are not shown.
    hidden: Vec<Range<usize>>,
    /// Lines that touch one of these ranges are shown only up to it. They are values of unknown
    /// keys, which may be misspelled secrets.
    cut: Vec<Range<usize>>,
    /// Lines with syntax errors, from 0. What the parser recovered around them is not trusted.
    broken: BTreeSet<usize>,
}

/// All files and all problems.
#[derive(Default)]
pub(super) struct ConfigReport {
    texts: Vec<SourceText>,
    problems: Vec<ConfigProblem>,
}

impl ConfigReport {
    /// Adds a file. The returned index names the file from now on.
    pub fn add_file(&mut self, path: PathBuf, text: String) -> usize {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        self.texts.push(SourceText {
            line_starts: std::iter::once(0).chain(starts).collect(),
            path,
            text,
            hidden: Vec::new(),
            cut: Vec::new(),
            broken: BTreeSet::new(),
        });
        self.texts.len() - 1
    }

    /// Adds an error.
    pub fn error(&mut self, spot: &Spot, message: impl Into<String>) -> &mut ConfigProblem {
        self.note(Severity::Error, spot, message.into())
    }

    /// Adds a warning.
    pub fn warning(&mut self, spot: &Spot, message: impl Into<String>) -> &mut ConfigProblem {
        self.note(Severity::Warning, spot, message.into())
    }

    fn note(&mut self, severity: Severity, spot: &Spot, message: String) -> &mut ConfigProblem {
        let index = self.problems.len();
        self.problems.push(ConfigProblem {
            severity,
            spot: spot.clone(),
            message,
            help: String::new(),
            if_whole: false,
        });
        &mut self.problems[index]
    }

    /// Adds a syntax error. Its line is not trusted, and shown only if no secret can be on it.
    pub fn syntax_error(&mut self, spot: &Spot, message: &str) {
        let (line, _) = self.texts[spot.place.file].position(spot.place.start);
        self.texts[spot.place.file].broken.insert(line);
        self.error(spot, format!("not TOML: {message}"));
    }

    /// Whether the file has syntax errors.
    pub fn is_broken(&self, file: usize) -> bool {
        !self.texts[file].broken.is_empty()
    }

    /// Hides all lines that touch this range.
    pub fn hide(&mut self, place: Span) {
        self.texts[place.file].hidden.push(place.start..place.end);
    }

    /// Shows lines that touch this range only up to it.
    pub fn cut(&mut self, place: Span) {
        self.texts[place.file].cut.push(place.start..place.end);
    }

    /// Drops problems that a file with syntax errors may only seem to have.
    pub fn drop_doubtful(&mut self) {
        let texts = &self.texts;
        self.problems.retain(|problem| {
            let text = &texts[problem.spot.place.file];
            if text.broken.is_empty() || problem.message.starts_with("not TOML: ") {
                return true;
            }
            let (line, _) = text.position(problem.spot.place.start);
            !problem.if_whole && !text.broken.contains(&line)
        });
    }

    /// Whether a problem of this severity hurts this owner.
    pub fn has(&self, severity: Severity, owner: &Owner) -> bool {
        self.of(severity, owner).next().is_some()
    }

    /// All problems of this severity that hurt this owner.
    pub fn of(&self, severity: Severity, owner: &Owner) -> impl Iterator<Item = &ConfigProblem> {
        self.problems
            .iter()
            .filter(move |p| p.severity == severity && p.spot.owner == *owner)
    }

    /// Every file with its number.
    pub fn files(&self) -> impl Iterator<Item = (usize, &Path)> {
        self.texts
            .iter()
            .enumerate()
            .map(|(index, text)| (index, text.path.as_path()))
    }

    /// `file:line:column`, for messages that name two places.
    pub fn describe(&self, place: Span) -> String {
        let text = &self.texts[place.file];
        let (line, column) = text.position(place.start);
        format!(
            "{}:{}:{}",
            printable(&text.path.to_string_lossy()),
            line + 1,
            column + 1
        )
    }

    /// The finding for a problem, for people and programs.
    pub fn finding(&self, problem: &ConfigProblem) -> Finding {
        let text = &self.texts[problem.spot.place.file];
        let (line, column) = text.position(problem.spot.place.start);
        Finding {
            severity: problem.severity,
            path: problem.spot.path.clone(),
            file: text.path.clone(),
            line: number(line),
            column: number(column),
            width: text.width(problem.spot.place),
            message: problem.message.clone(),
            help: problem.help.clone(),
            profile: match &problem.spot.owner {
                Owner::Profile(name) => Some(name.clone()),
                _ => None,
            },
            snippet: text.snippet(line),
        }
    }

    /// Forgets all problems, but not the files.
    pub fn forget(&mut self) {
        self.problems.clear();
    }

    /// All findings in the order of the files, each once.
    pub fn findings(&self) -> Vec<Finding> {
        let mut order: Vec<&ConfigProblem> = self.problems.iter().collect();
        order.sort_by_key(|problem| problem.spot.place);
        let mut findings: Vec<Finding> = Vec::new();
        for problem in order {
            let finding = self.finding(problem);
            // Profiles that share an [idp] share its problems. Each is reported once, and equal
            // ones stand at the same place.
            let told = findings
                .iter()
                .rev()
                .take_while(|other| (other.line, other.column) == (finding.line, finding.column))
                .any(|other| {
                    (other.severity, &other.message, &other.file)
                        == (finding.severity, &finding.message, &finding.file)
                });
            if !told {
                findings.push(finding);
            }
        }
        findings
    }
}

impl SourceText {
    /// Line and column of a byte, both from 0, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self
            .line_starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1);
        let column = self.text[self.line_starts[line]..offset].chars().count();
        (line, column)
    }

    /// The number of characters of a place on its first line.
    fn width(&self, place: Span) -> u32 {
        let (line, _) = self.position(place.start);
        let end = place
            .end
            .min(self.span_of(line).start + self.content(line).len());
        let width = self
            .text
            .get(place.start..end)
            .map_or(1, |text| text.trim_end().chars().count());
        u32::try_from(width.max(1)).unwrap_or(1)
    }

    fn span_of(&self, line: usize) -> Range<usize> {
        let start = self.line_starts[line];
        let end = self
            .line_starts
            .get(line + 1)
            .map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }

    fn content(&self, line: usize) -> &str {
        self.text[self.span_of(line)].trim_end_matches('\r')
    }

    /// The part of a line that may be shown.
    fn snippet(&self, line: usize) -> Option<String> {
        let span = self.span_of(line);
        let touches = |range: &&Range<usize>| range.start <= span.end && range.end > span.start;
        if self.hidden.iter().any(|range| touches(&range)) {
            return None;
        }
        // After a syntax error the meaning of a line is unknown, so only plainly harmless lines are
        // shown.
        if !self.broken.is_empty() && !self.is_harmless(line) {
            return None;
        }
        match self.cut.iter().filter(touches).map(|cut| cut.start).min() {
            None => Some(self.content(line).to_owned()),
            Some(at) if at > span.start => Some(format!("{}…", &self.text[span.start..at])),
            Some(_) => None,
        }
    }

    /// Whether a line is a table's header, or gives a value to a key that never holds a secret.
    fn is_harmless(&self, line: usize) -> bool {
        let text = self.content(line).trim_start();
        // The line has more than one key or more than one text: a line break may be missing here.
        if text.contains(['@', '{', '#'])
            || text.matches('=').count() > 1
            || text.matches(['"', '\'']).count() > 2
        {
            return false;
        }
        if text.starts_with('[') {
            return !text.contains(['=', '"', '\'', ',']);
        }
        let free = (0..line)
            .rev()
            .map(|above| self.content(above).trim_start())
            .find(|above| above.starts_with('['))
            .is_some_and(|header| header.contains("extra") || header.contains("settings"));
        let Some((key, _)) = text.split_once('=') else {
            return false;
        };
        !free && schema::is_harmless(key.trim())
    }
}

fn number(from_zero: usize) -> u32 {
    u32::try_from(from_zero)
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}
