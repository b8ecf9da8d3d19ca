//! Which labels the answer to an expression of PromQL has, as far as what is exported tells.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::{
    label::Labels as Named,
    parser::{self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector, value::ValueType},
};

/// The labels of each series, and the values that they have.
pub(crate) type Exported = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;
pub(crate) type Labels = BTreeSet<String>;

/// What Prometheus adds to whatever it scrapes, and the one series that it makes of the scrape itself.
const ADDED: [&str; 2] = ["job", "instance"];
const SCRAPED: &str = "up";

/// The labels of the answer to `text`. An error says what in it is wrong, or could never match.
pub(crate) fn labels(text: &str, exported: &Exported) -> Result<Labels, String> {
    of(&parser::parse(text)?, exported)
}

fn of(expr: &Expr, exported: &Exported) -> Result<Labels, String> {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
        Expr::VectorSelector(selector) => selected(selector, exported),
        Expr::MatrixSelector(matrix) => selected(&matrix.vs, exported),
        Expr::Paren(inner) => of(&inner.expr, exported),
        Expr::Unary(inner) => of(&inner.expr, exported),
        Expr::Subquery(inner) => of(&inner.expr, exported),
        Expr::Aggregate(aggregate) => aggregated(aggregate, exported),
        Expr::Call(call) => called(call, exported),
        Expr::Binary(binary) => compared(binary, exported),
        Expr::Extension(_) => Err("what is this?".to_owned()),
    }
}

fn selected(selector: &VectorSelector, exported: &Exported) -> Result<Labels, String> {
    let name = selector.name.as_deref().ok_or("a selector without a name")?;
    let none = BTreeMap::new();
    let series = if name == SCRAPED { &none } else { exported.get(name).ok_or(format!("{name} is not exported"))? };
    assert!(selector.matchers.or_matchers.is_empty(), "{selector}: not known here");
    for matcher in selector.matchers.matchers.iter().filter(|matcher| !ADDED.contains(&&*matcher.name)) {
        let values = series.get(&matcher.name).ok_or(format!("{name} has no label {}", matcher.name))?;
        if let Some(never) = matcher.value.split('|').find(|value| !values.contains(*value)) {
            return Err(format!("{} of {name} is never {never:?}", matcher.name));
        }
    }
    Ok(series.keys().cloned().chain(ADDED.map(str::to_owned)).collect())
}

fn aggregated(aggregate: &AggregateExpr, exported: &Exported) -> Result<Labels, String> {
    let inner = of(&aggregate.expr, exported)?;
    let known = |named: &Named| -> Result<Labels, String> {
        let names: Labels = named.labels.iter().cloned().collect();
        names.is_subset(&inner).then_some(names).ok_or(format!("{named:?} of what has only {inner:?}"))
    };
    match &aggregate.modifier {
        None => Ok(Labels::new()),
        Some(LabelModifier::Include(kept)) => known(kept),
        Some(LabelModifier::Exclude(dropped)) => Ok(&inner - &known(dropped)?),
    }
}

fn called(call: &Call, exported: &Exported) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for argument in &call.args.args {
        labels.extend(of(argument, exported)?);
    }
    if call.func.name == "histogram_quantile" && !labels.remove("le") {
        return Err(format!("{call}: a quantile of what has no le"));
    }
    Ok(labels)
}

fn compared(binary: &BinaryExpr, exported: &Exported) -> Result<Labels, String> {
    let sides = [&binary.lhs, &binary.rhs];
    let [left, right] = [of(sides[0], exported)?, of(sides[1], exported)?];
    let [is_left, is_right] = sides.map(|side| side.value_type() == ValueType::Vector);
    let matching = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
    if is_left && is_right && matching.is_none() && left != right {
        return Err(format!("{binary}: {left:?} never match {right:?}"));
    }
    Ok(if is_left { left } else { right })
}
