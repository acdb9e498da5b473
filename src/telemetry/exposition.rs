//! The two formats of the page of metrics: OpenMetrics, and the older text format of Prometheus for readers that do not ask
//! for OpenMetrics, such as `promtool check metrics` and `curl`.

/// A format of the page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Exposition {
    /// The format to answer a request in that has this `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A page of OpenMetrics in the text format of Prometheus. Samples are the same in both; a family is named as its samples are, and
/// has no unit, and there is no type `info`.
pub(super) fn in_prometheus_text(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let kind = lines.peek().and_then(|next| next.rsplit(' ').next());
            let (name, words) = help.split_once(' ').unwrap_or((help, ""));
            let suffix = suffix(kind.unwrap_or_default());
            push(&mut text, &["# HELP ", name, suffix, " ", words]);
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap_or((family, "untyped"));
            let shown = match kind {
                "info" => "gauge",
                "unknown" => "untyped",
                kind => kind,
            };
            push(&mut text, &["# TYPE ", name, suffix(kind), " ", shown]);
        } else if !line.starts_with('#') {
            push(&mut text, &[line]);
        }
    }
    text
}

/// What the samples of a type have after the name of their family.
fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

fn push(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_named_as_its_samples_are() {
        let page = "# HELP a Many as.\n# TYPE a counter\na_total{t=\"# HELP\"} 1\n\
                    # HELP b_seconds Bs.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 2\n\
                    # HELP c C.\n# TYPE c info\nc_info{version=\"1\"} 1\n# HELP d D.\n# TYPE d gauge\nd 1\n# EOF\n";
        let expected = "# HELP a_total Many as.\n# TYPE a_total counter\na_total{t=\"# HELP\"} 1\n\
                        # HELP b_seconds Bs.\n# TYPE b_seconds histogram\nb_seconds_sum 2\n\
                        # HELP c_info C.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n# HELP d D.\n# TYPE d gauge\nd 1\n";
        assert_eq!(in_prometheus_text(page), expected);
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus, Exposition::OpenMetrics),
            ("", Exposition::Prometheus),
            ("*/*", Exposition::Prometheus),
            ("text/plain", Exposition::Prometheus),
        ] {
            assert_eq!(Exposition::accepted(accept), expected, "{accept}");
        }
    }
}
