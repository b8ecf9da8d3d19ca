//! How the model is drawn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap},
};

use super::model::{Mode, Model, TABS, person};
use crate::{
    command::say::{printable, span},
    protocol::Owner,
};

/// Rows that are not those of a list: the title, the tabs, the heads of the columns and the bottom.
pub(super) const AROUND: u16 = 4;

/// Columns of a bar that shows what is left of a lease.
const BAR: usize = 6;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [head, tabs, body, bottom] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(title(model), head);
    frame.render_widget(tab_line(model), tabs);
    match model.tab {
        0 => locks(frame, model, body),
        1 => elections(frame, model, body),
        2 => groups(frame, model, body),
        _ => changes(frame, model, body),
    }
    frame.render_widget(Line::from(model.bottom()).style(dim(model)), bottom);
    if let Mode::Confirm { name, holder, fence } = &model.mode {
        confirm(frame, &format!("{} is held by {} with token {fence}.", printable(name), printable(holder)));
    }
}

fn coloured(model: &Model, colour: Color) -> Style {
    if model.colour { Style::new().fg(colour) } else { Style::new() }
}

fn dim(model: &Model) -> Style {
    if model.colour { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
}

fn title(model: &Model) -> Line<'_> {
    if let Some(why) = &model.away {
        let style = coloured(model, Color::Red).add_modifier(Modifier::BOLD);
        return Line::styled(format!("{}; looking again", printable(why)), style);
    }
    match &model.snapshot {
        None => Line::from("looking…"),
        Some(snapshot) => {
            let status = &snapshot.status;
            let leaving = if status.draining { "  leaving" } else { "" };
            Line::from(vec![
                Span::styled(status.server.clone(), Style::new().add_modifier(Modifier::BOLD)),
                Span::raw(format!(
                    "  {}  up {}  {} connections{leaving}",
                    printable(&status.store.url),
                    span(Duration::from_millis(status.uptime_ms)),
                    status.connections
                )),
            ])
        }
    }
}

fn tab_line(model: &Model) -> Line<'static> {
    let counts = model
        .snapshot
        .as_ref()
        .map_or([0; 4], |snapshot| [snapshot.locks.len(), snapshot.elections.len(), snapshot.groups.len(), model.changes.len()]);
    let tabs = TABS.iter().zip(counts).enumerate().flat_map(|(at, (name, count))| {
        let style = if at == model.tab { Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD) } else { Style::new() };
        [Span::styled(format!(" {} {name} {count} ", at + 1), style), Span::raw(" ")]
    });
    Line::from(tabs.collect::<Vec<_>>())
}

fn table(
    frame: &mut Frame<'_>,
    model: &Model,
    area: Rect,
    head: &[&'static str],
    widths: &[Constraint],
    rows: Vec<Row<'static>>,
    chosen: bool,
) {
    let count = rows.len();
    let table = Table::new(rows, widths.iter().copied())
        .header(Row::new(head.iter().copied()).style(dim(model).add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((chosen && count > 0).then_some(model.selected()));
    frame.render_stateful_widget(table, area, &mut state);
}

/// The columns of what somebody holds and others wait for.
const HELD: [Constraint; 6] = [
    Constraint::Fill(2),
    Constraint::Fill(3),
    Constraint::Length(7),
    Constraint::Length(7),
    Constraint::Length(4),
    Constraint::Length(BAR as u16 + 7),
];

fn locks(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let rows = model.locks().into_iter().map(|lock| {
        let (who, token, age, lease) = match &lock.holder {
            Some(holder) => (who(holder), holder.fence.to_string(), age(holder.since_ms), bar(model, &holder.session)),
            None => ("-".to_owned(), "-".to_owned(), String::new(), String::new()),
        };
        Row::new([printable(&lock.name), who, token, age, lock.waiting().to_string(), lease])
    });
    let rows = rows.collect();
    table(frame, model, area, &["LOCK", "HOLDER", "TOKEN", "FOR", "WAIT", "LEASE"], &HELD, rows, true);
}

fn elections(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let rows = model.elections().into_iter().map(|election| match &election.leader {
        Some(leader) => Row::new([
            printable(&election.name),
            person(leader.label.as_deref(), &leader.host, leader.pid),
            leader.fence.to_string(),
            age(leader.since_ms),
            election.candidates.to_string(),
            bar(model, &leader.session),
        ]),
        None => {
            let nobody = ["nobody".to_owned(), "-".to_owned(), String::new(), election.candidates.to_string(), String::new()];
            Row::new([vec![printable(&election.name)], nobody.into()].concat()).style(coloured(model, Color::Yellow))
        }
    });
    let rows = rows.collect();
    table(frame, model, area, &["ELECTION", "LEADER", "TERM", "FOR", "WAIT", "LEASE"], &HELD, rows, true);
}

fn groups(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Length(26), Constraint::Min(20)]).spacing(1).areas(area);
    let rows = model.groups().into_iter().map(|group| Row::new([printable(&group.name), group.members.to_string()]));
    let rows = rows.collect();
    table(frame, model, left, &["GROUP", "MEMBERS"], &[Constraint::Fill(1), Constraint::Length(7)], rows, true);
    let members = model.members().map(|member| {
        let colour = match member.state {
            tenure::InstanceState::Passing => Color::Green,
            tenure::InstanceState::Critical => Color::Red,
            _ => Color::Yellow,
        };
        let address = printable(member.address.as_deref().unwrap_or("-"));
        Row::new([printable(&member.id), member.state.to_string(), address]).style(coloured(model, colour))
    });
    let members = members.collect();
    table(
        frame,
        model,
        right,
        &["MEMBER", "STATE", "ADDRESS"],
        &[Constraint::Fill(1), Constraint::Length(11), Constraint::Length(21)],
        members,
        false,
    );
}

fn changes(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let rows = model.changes().into_iter().map(|change| {
        let at = humantime::format_rfc3339_seconds(change.at).to_string();
        let at = at.get(11..).unwrap_or_default().to_owned();
        let gap = format!("≤{}", span(change.gap));
        Row::new([at, printable(&change.election), printable(&change.from), printable(&change.to), change.term.to_string(), gap])
    });
    let rows = rows.collect();
    let widths = [
        Constraint::Length(9),
        Constraint::Fill(1),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Length(9),
    ];
    table(frame, model, area, &["TIME", "ELECTION", "FROM", "TO", "TERM", "GAP"], &widths, rows, true);
}

/// A question over everything else.
fn confirm(frame: &mut Frame<'_>, says: &str) {
    let area = frame.area();
    let (width, height) = (area.width.min(64), area.height.min(7));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let text =
        vec![Line::from(says.to_owned()), Line::from(""), Line::from("Break this hold?  y breaks it, any other key does not")];
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }).block(Block::bordered().title(" break ")), place);
}

fn who(owner: &Owner) -> String {
    person(owner.label.as_deref(), &owner.host, owner.pid)
}

/// How long ago, as people read it.
fn age(since_ms: u64) -> String {
    let since = UNIX_EPOCH.checked_add(Duration::from_millis(since_ms)).unwrap_or(UNIX_EPOCH);
    let age = SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
    match age {
        0..60 => format!("{age}s"),
        60..3_600 => format!("{}m {}s", age / 60, age % 60),
        3_600..86_400 => format!("{}h {}m", age / 3_600, age / 60 % 60),
        _ => format!("{}d {}h", age / 86_400, age / 3_600 % 24),
    }
}

/// What is left of a lease, where that is known.
fn bar(model: &Model, session: &str) -> String {
    let Some((left, lease)) = model.lease(session) else { return "-".to_owned() };
    let full = left.as_millis().saturating_mul(BAR as u128).div_ceil(lease.as_millis().max(1));
    let full = usize::try_from(full).unwrap_or(BAR).min(BAR);
    format!("{}{} {:.1}s", "█".repeat(full), "░".repeat(BAR - full), left.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::{
            feed::News,
            model::tests::{model, snapshot, typed},
        },
        *,
    };

    fn shown(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content().chunks(usize::from(width));
        lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn everything_fits_on_a_small_terminal() {
        let mut model = model();
        let locks = shown(&model, 80, 24);
        for part in ["tenured/0.1.0", "memory:", "Locks 2", "LOCK", "nightly", "web1:42", "████░░ 6.0s", "q quit"] {
            assert!(locks.contains(part), "{part} in\n{locks}");
        }
        assert!(!locks.contains('\u{1b}'), "a label must not steer the terminal");
        typed(&mut model, "2");
        let elections = shown(&model, 80, 24);
        assert!(elections.contains("db") && elections.contains("leader3 web1:42"), "{elections}");
        typed(&mut model, "3");
        assert!(shown(&model, 80, 24).contains("web"));
        model.take(News::All(snapshot(5)), SystemTime::UNIX_EPOCH + Duration::from_secs(2));
        typed(&mut model, "4");
        let changes = shown(&model, 80, 24);
        assert!(changes.contains("00:00:02Z") && changes.contains("≤2s"), "{changes}");
    }

    #[test]
    fn a_question_names_what_it_is_about() {
        let mut model = model();
        typed(&mut model, "jb");
        let asked = shown(&model, 80, 24);
        for part in ["nightly is held by", "pid 42", "with token 7", "y breaks it"] {
            assert!(asked.contains(part), "{part} in\n{asked}");
        }
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_on() {
        let mut model = model();
        model.take(News::Away("tenured closed the connection".to_owned()), SystemTime::UNIX_EPOCH);
        for (width, height) in [(1, 1), (5, 3), (20, 2), (300, 100)] {
            for keys in ["1jb", "n2", "3", "4", "/x\n\u{1b}"] {
                typed(&mut model, keys);
                shown(&model, width, height);
            }
        }
        assert!(shown(&model, 80, 24).contains("closed the connection; looking again"));
    }
}
