//! Where the load comes from: processes of their own, so that what it takes to make it is known and is not mixed with
//! what the bench itself does. Each is this program again, which reads one job, prepares it, says that it is ready,
//! waits to be told to go, does the job, and says what it found.
//!
//! Both sides speak lines of JSON over the generator's input and output. A generator ends when its input does, so that
//! none outlives its bench.

use std::io::{BufRead as _, BufReader, Read as _, Write as _, stdin};
use std::marker::PhantomData;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::appending_by_hand::AppendByHand;
use crate::crowd::Connect;
use crate::initial_sync::FillDevice;
use crate::outcome::{Outcome, ensure};
use crate::pushing::{Push, PushOnTime, PushUntilEnough};
use crate::receiving::{FromNats, FromServer};
use crate::streams::Append;

const READY: &str = "ready";
const GO: &str = "go";
const ENOUGH: &str = "enough";

/// What a generator can do.
pub trait Job: Serialize + DeserializeOwned {
    /// What a bench calls it.
    const NAME: &str;
    /// What a generator finds.
    type Found: Serialize + DeserializeOwned;

    /// Does it, in the process that is the generator: calls [`Stage::begin`] once when it is prepared and
    /// [`Stage::found`] once in the end; what it holds on to afterwards lives until the bench lets go.
    fn run(self, stage: Stage<Self::Found>) -> Outcome;
}

/// A process that generates load; it is killed when this is dropped.
#[derive(Debug)]
pub struct Generator<J> {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    job: PhantomData<J>,
}

impl<J: Job> Generator<J> {
    /// Starts one and waits until it is prepared.
    pub fn start(job: &J) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--generate", J::NAME]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.ok_or("a process without pipes")?;
        let output = BufReader::new(output);
        let mut generator = Self { process, input, output, job: PhantomData };
        generator.tell(&serde_json::to_string(job)?)?;
        let said = generator.line()?;
        ensure(said == READY, || format!("the generator said {said:?} before it was ready"))?;
        Ok(generator)
    }

    /// Lets it begin.
    pub fn go(&mut self) -> Outcome {
        self.tell(GO)
    }

    /// Tells it that it need not go on.
    pub fn enough(&mut self) -> Outcome {
        self.tell(ENOUGH)
    }

    /// Waits for what it finds.
    pub fn found(&mut self) -> Outcome<J::Found> {
        Ok(serde_json::from_str(&self.line()?)?)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Fails where it has ended, which none does by itself before its bench lets go.
    pub fn is_there(&mut self) -> Outcome {
        if self.process.try_wait()?.is_some() { Err(self.why_it_ended()) } else { Ok(()) }
    }

    fn tell(&mut self, line: &str) -> Outcome {
        let told = self.input.write_all(line.as_bytes());
        let told =
            told.and_then(|()| self.input.write_all(b"\n")).and_then(|()| self.input.flush());
        told.map_err(|_| self.why_it_ended())
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(self.why_it_ended());
        }
        Ok(line.trim_end().to_owned())
    }

    /// What it said when it failed.
    fn why_it_ended(&mut self) -> crate::outcome::Failure {
        let mut said = String::new();
        if let Some(errors) = &mut self.process.stderr {
            // What cannot be read is not said.
            let _ = errors.read_to_string(&mut said);
        }
        format!("the generator `{}` failed: {}", J::NAME, said.trim_end()).into()
    }
}

impl<J> Drop for Generator<J> {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a generator says to its bench.
#[derive(Debug)]
pub struct Stage<F> {
    enough: Arc<AtomicBool>,
    found: PhantomData<F>,
}

impl<F: Serialize> Stage<F> {
    /// Says that all is prepared and waits until the bench wants it to begin.
    pub fn begin(&self) -> Outcome {
        println!("{READY}");
        let told = next_line()?.unwrap_or_default();
        ensure(told == GO, || format!("the bench said {told:?}"))?;
        let enough = Arc::clone(&self.enough);
        thread::spawn(move || {
            while let Ok(Some(told)) = next_line() {
                enough.store(told == ENOUGH, Ordering::Relaxed);
            }
            leave();
        });
        Ok(())
    }

    /// Whether the bench has enough.
    pub fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// Says what was found.
    pub fn found(&self, found: &F) -> Outcome {
        println!("{}", serde_json::to_string(found)?);
        Ok(())
    }
}

/// Is a generator.
pub fn generate(name: &str) -> Outcome {
    match name {
        Push::NAME => run::<Push>(),
        PushUntilEnough::NAME => run::<PushUntilEnough>(),
        PushOnTime::NAME => run::<PushOnTime>(),
        Connect::NAME => run::<Connect>(),
        FromServer::NAME => run::<FromServer>(),
        FromNats::NAME => run::<FromNats>(),
        FillDevice::NAME => run::<FillDevice>(),
        Append::NAME => run::<Append>(),
        AppendByHand::NAME => run::<AppendByHand>(),
        other => Err(format!("there is no job {other:?}").into()),
    }
}

fn run<J: Job>() -> Outcome {
    let job = next_line()?.ok_or("there is no job")?;
    let job: J = serde_json::from_str(&job)?;
    job.run(Stage { enough: Arc::default(), found: PhantomData })?;
    // The bench looks at this process once more; the thread that listens to it ends the process.
    loop {
        thread::park();
    }
}

/// What the bench says next; nothing once it is gone.
fn next_line() -> Outcome<Option<String>> {
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}

#[expect(clippy::exit, reason = "whatever the job does then, nobody wants it any more")]
fn leave() {
    std::process::exit(0);
}
