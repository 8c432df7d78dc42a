-- A database of version 0.1, as `sqlite3 events.db .dump` writes it, but for tables that came later.
BEGIN TRANSACTION;
CREATE TABLE approvals (
	run TEXT NOT NULL,
	stage TEXT NOT NULL,
	who TEXT NOT NULL,
	PRIMARY KEY (run, stage),
	FOREIGN KEY(run) REFERENCES runs (run)
);
CREATE TABLE asked (
	endpoint TEXT NOT NULL,
	at DOUBLE NOT NULL,
	PRIMARY KEY (endpoint)
);
CREATE TABLE cursors (
	name TEXT NOT NULL,
	value BIGINT NOT NULL,
	PRIMARY KEY (name)
);
CREATE TABLE drains (
	pool TEXT NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (pool)
);
INSERT INTO "drains" VALUES('test/a','repair');
CREATE TABLE endpoint_events (
	endpoint TEXT NOT NULL,
	seq INTEGER NOT NULL,
	at DOUBLE NOT NULL,
	kind TEXT NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (endpoint, seq)
);
CREATE TABLE events (
	run TEXT NOT NULL,
	seq INTEGER NOT NULL,
	at DOUBLE NOT NULL,
	kind TEXT NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (run, seq),
	FOREIGN KEY(run) REFERENCES runs (run)
);
INSERT INTO "events" VALUES('run',1,2.0,'RunStarted','{"epoch":1,"seen":null}');
CREATE TABLE key_rules (
	id INTEGER NOT NULL,
	required TEXT NOT NULL,
	stamp TEXT NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE keys (
	name TEXT NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (name)
);
INSERT INTO "keys" VALUES('ann','{}');
CREATE TABLE leases (
	run TEXT NOT NULL,
	epoch INTEGER NOT NULL,
	at DOUBLE NOT NULL,
	holder TEXT NOT NULL,
	PRIMARY KEY (run),
	FOREIGN KEY(run) REFERENCES runs (run)
);
CREATE TABLE lines (
	run TEXT NOT NULL,
	stage TEXT NOT NULL,
	pool TEXT NOT NULL,
	priority INTEGER NOT NULL,
	since DOUBLE NOT NULL,
	devices INTEGER NOT NULL,
	at DOUBLE NOT NULL,
	PRIMARY KEY (run, stage),
	FOREIGN KEY(run) REFERENCES runs (run)
);
INSERT INTO "lines" VALUES('run','s','test/a',0,4.0,2,5.0);
CREATE TABLE points (
	id INTEGER NOT NULL,
	run TEXT NOT NULL,
	stage TEXT NOT NULL,
	attempt INTEGER NOT NULL,
	"key" TEXT NOT NULL,
	value DOUBLE,
	step BIGINT NOT NULL,
	at DOUBLE NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (run, stage, attempt, step, at, "key"),
	FOREIGN KEY(run) REFERENCES runs (run)
);
INSERT INTO "points" VALUES(1,'run','s',1,'loss',2.5,1,3.0);
CREATE TABLE queues (run TEXT NOT NULL, stage TEXT NOT NULL, pool TEXT NOT NULL, PRIMARY KEY (run, stage));
INSERT INTO "queues" VALUES('run','s','test/b');
CREATE TABLE reconcilers (
	cluster TEXT NOT NULL,
	holder TEXT NOT NULL,
	at DOUBLE NOT NULL,
	PRIMARY KEY (cluster)
);
CREATE TABLE replicas (
	endpoint TEXT NOT NULL,
	revision INTEGER NOT NULL,
	urls TEXT NOT NULL,
	PRIMARY KEY (endpoint, revision)
);
CREATE TABLE results (
	"key" TEXT NOT NULL,
	run TEXT NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY ("key")
);
CREATE TABLE runs (
	run TEXT NOT NULL,
	at DOUBLE NOT NULL,
	header TEXT NOT NULL,
	cancel BOOLEAN NOT NULL,
	PRIMARY KEY (run)
);
INSERT INTO "runs" VALUES('run',1.0,'{"run":"run","plan":{"pipeline":"test","fleet":"test","stages":[],"pools":{}}}',0);
CREATE TABLE troubles (
	endpoint TEXT NOT NULL,
	revision INTEGER NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (endpoint, revision)
);
CREATE TABLE untold (
	run TEXT NOT NULL,
	what TEXT NOT NULL,
	times BIGINT NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (run, what),
	FOREIGN KEY(run) REFERENCES runs (run)
);
CREATE TABLE usage (
	gateway TEXT NOT NULL,
	day TEXT NOT NULL,
	"key" TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	revision TEXT NOT NULL,
	pool TEXT NOT NULL,
	requests BIGINT NOT NULL,
	prompt_tokens BIGINT NOT NULL,
	completion_tokens BIGINT NOT NULL,
	seconds DOUBLE NOT NULL,
	cost DOUBLE NOT NULL,
	PRIMARY KEY (gateway, day, "key", endpoint, revision, pool)
);
CREATE TABLE verdicts (
	pool TEXT NOT NULL,
	role TEXT NOT NULL,
	identity TEXT NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (pool, role, identity)
);
CREATE INDEX ix_runs_at ON runs (at);
CREATE INDEX ix_usage_day ON usage (day);
COMMIT;
