//! What every kind of target must do, written once: each kind passes the same rules, through the executor as the dispatcher
//! drives it, against a real server, over a connection that is cut where it hurts.
//!
//! A new kind is a file that implements `Subject`, and a line at the end of this one.

mod bench;
mod clickhouse;
mod crowds;
mod http;
mod losses;
mod postgres;
mod receiver;
mod rules;
mod subject;

macro_rules! conforms {
    ($kind:ident, $subject:ty) => {
        mod $kind {
            conforms!(@rules $subject:
                rules::work_is_done_once_and_what_it_returns_is_kept,
                rules::a_failure_is_final_and_has_the_code_of_the_other_side,
                rules::a_query_that_makes_no_sense_is_a_failure,
                rules::wrong_credentials_are_a_failure_that_names_no_secret,
                rules::no_secret_is_in_what_the_other_side_says,
                rules::more_than_may_be_kept_is_a_failure,
                rules::a_cancelled_job_stops_here_and_there,
                rules::a_job_whose_time_is_up_stops_here_and_there,
                losses::a_target_that_is_down_keeps_its_jobs_until_it_is_back,
                losses::cut_before_the_work_arrived,
                losses::cut_while_the_work_is_done,
                losses::cut_when_the_work_was_done,
                losses::attempts_between_that_never_looked,
                losses::cut_again_while_the_attempt_before_is_looked_up,
                losses::the_server_dies_in_the_middle,
                losses::a_connection_that_idled_is_gone,
                crowds::hundreds_are_in_flight_at_once,
                crowds::a_large_result_takes_little_memory,
            );
        }
    };
    (@rules $subject:ty: $($file:ident::$rule:ident,)*) => {
        $(#[test]
        fn $rule() {
            crate::$file::$rule(&mut crate::bench::Bench::<$subject>::start());
        })*
    };
}

conforms!(kind_postgres, crate::postgres::Postgres);
conforms!(kind_clickhouse, crate::clickhouse::ClickHouse);
conforms!(kind_http, crate::http::Http);
