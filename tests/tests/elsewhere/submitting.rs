//! async.submit, with ClickHouse on the other side: many who ask the same have it computed once.

use anyhow::Result;

use crate::kit::*;

#[test]
fn fifty_who_submit_the_same_at_once_have_it_run_once() {
    test("submitted", |place| {
        let house = place.with_clickhouse()?;
        house.query("CREATE TABLE submitted.runs (n UInt8) ENGINE = Memory")?;
        place.here.role("analyst")?;
        let submit = "SELECT execution_id FROM async.submit(
            'SELECT toInt32(number) AS n, {site:String} AS s FROM numbers(3) WHERE NOT ignore(sleepEachRow(0.5))', 'report',
            _arguments => '{\"site\": \"docs\"}', _result => '\"inline\"')";
        let ids: Vec<i64> = std::thread::scope(|scope| -> Result<Vec<i64>> {
            let all: Vec<_> =
                (0..50).map(|_| scope.spawn(|| place.here.connect_as("analyst")?.number(submit))).collect();
            all.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("it panicked"))?).collect()
        })?;
        same(ids.iter().filter(|id| **id != ids[0]).count(), 0)?;
        let id = ids[0];
        place.here.wait_until(
            &format!("(SELECT status = 'SUCCEEDED' FROM async.v_execution WHERE execution_id = {id})"),
            SOON,
        )?;
        let mut analyst = place.here.connect_as("analyst")?;
        let task = analyst.number(&format!("SELECT task_id FROM async.execution({id})"))?;
        same(
            analyst.text(&format!("SELECT string_agg(r::TEXT, ' ') FROM async.fetch_result({task}) r"))?,
            r#"{"n": 0, "s": "docs"} {"n": 1, "s": "docs"} {"n": 2, "s": "docs"}"#,
        )?;
        wait_for("the log tells of one", || {
            Ok(house.query("SELECT count() FROM system.query_log WHERE type = 'QueryFinish' AND current_database = 'submitted' AND query LIKE 'SELECT toInt32(number) AS n%'")? == "1")
        })
    });
}
