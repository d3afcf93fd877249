use pgflow_tests::cluster::Cluster;
#[test]
fn leak() -> anyhow::Result<()> {
    let c = Cluster::options().setting("pgflow.max_workers", "8").start()?;
    for i in 0..4 {
        let name = format!("d{i}");
        let d = c.database(&name)?;
        let mut s = d.connect()?;
        s.run("CREATE PROCEDURE a(_args flow.callback_arguments_t) LANGUAGE plpgsql AS 'BEGIN NULL; END';
          SELECT flow.configure_flow('f', '{\"nodes\":[{\"node\":\"a\",\"routine\":\"a\", \"steps\":[{\"a\":1},{\"a\":2},{\"a\":3},{\"a\":4},{\"a\":5},{\"a\":6}]}]}')")?;
        let id = s.number("SELECT flow.run_flow('f', '{}')")?;
        std::thread::sleep(std::time::Duration::from_millis(1500));
        println!("{name}: {}", s.text(&format!("SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id={id}"))?);
        for r in s.rows("SELECT kind, pid, database_oid, state, last_error FROM async.processes()")? { println!("   {r:?}"); }
        drop(s);
        c.connect("postgres", "postgres")?.run(&format!("DROP DATABASE {name} WITH (FORCE)"))?;
    }
    println!("{}", c.log_tail(40, ""));
    Ok(())
}
