/* The script: what each kind of domain says, and when. */
#include "test/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
	const char *name;
	enum expectation expectation; /* for somebody who exists */
} kinds[ALL_BEHAVIOURS_COUNT] = {
    [HEALTHY] = {"healthy", EXPECT_DELIVERED},
    [OLD] = {"old", EXPECT_DELIVERED},
    [GREYLIST] = {"greylist", EXPECT_DELIVERED},
    [GREYLIST_HINT] = {"greylist-hint", EXPECT_DELIVERED},
    [GREYLIST_CONTENT] = {"greylist-content", EXPECT_DELIVERED},
    [THROTTLE] = {"throttle", EXPECT_ANY},
    [BUSY] = {"busy", EXPECT_ANY},
    [TARPIT] = {"tarpit", EXPECT_DELIVERED},
    [REFUSED] = {"refused", EXPECT_EXPIRED},
    [SILENT] = {"silent", EXPECT_EXPIRED},
    [FLAPPING] = {"flapping", EXPECT_ANY},
    [FULL] = {"full", EXPECT_ANY},
    [DROPPING] = {"dropping", EXPECT_ANY},
    [TAKES_AND_DROPS] = {"takes-and-drops", EXPECT_ANY},
    [FLAKY] = {"flaky", EXPECT_ANY},
    [REFUSING] = {"refusing", EXPECT_ANY},
    [HOSTILE] = {"hostile", EXPECT_ANY},
    [HALF_MX] = {"half-mx", EXPECT_DELIVERED},
    [FEW_RCPTS] = {"few-rcpts", EXPECT_DELIVERED},
    [IDLE_CLOSER] = {"idle-closer", EXPECT_DELIVERED},
    [SESSION_LIMIT] = {"session-limit", EXPECT_DELIVERED},
    [NO_DOMAIN] = {"no-domain", EXPECT_FAILED},
    [NULL_MX] = {"null-mx", EXPECT_FAILED},
    [DNS_FLAPPING] = {"dns-flapping", EXPECT_ANY},
    [DNS_DEAD] = {"dns-dead", EXPECT_EXPIRED},
    [OUT_OF_QUOTA] = {"out-of-quota", EXPECT_ANY},
    [ACCOUNT_LOCKED] = {"account-locked", EXPECT_ANY},
};

const char *behaviour_name(enum behaviour behaviour)
{
	return kinds[behaviour].name;
}

enum expectation behaviour_expectation(enum behaviour behaviour)
{
	return kinds[behaviour].expectation;
}

bool behaviour_is_healthy(enum behaviour behaviour)
{
	return behaviour == HEALTHY;
}

/* At least one host stays good. */
static void spoil_hosts(struct domain *domain, struct rng *rng)
{
	domain->host_count = 2 + (unsigned)rng_below(rng, HOSTS_MAX - 1);
	for (unsigned h = 0; h < domain->host_count / 2; h++)
		domain->hosts[h].fault = (enum host_fault)(HOST_REFUSED + rng_below(rng, 4));
}

void behaviour_fill_domain(struct domain *domain, struct rng *rng)
{
	bool is_greylist = domain->behaviour == GREYLIST || domain->behaviour == GREYLIST_HINT ||
			   domain->behaviour == GREYLIST_CONTENT;

	domain->variant = (unsigned)rng_below(rng, 12);
	domain->has_pipelining = sim_chance(rng, 80);
	domain->has_chunking = sim_chance(rng, 40);
	domain->has_8bit = domain->behaviour != OLD;
	domain->has_dsn = sim_chance(rng, 50);
	domain->refuses_starttls = sim_chance(rng, 10);
	domain->ttl_sec = (uint32_t)sim_between(rng, 60, 3600);
	domain->percent = 10 + (unsigned)rng_below(rng, 50);
	domain->limit = 1 + (unsigned)rng_below(rng, 8);
	if (is_greylist)
		domain->delay_ms = sim_log_uniform(rng, MIN_MS, HOUR_MS);
	if (domain->behaviour == TARPIT)
		domain->delay_ms = sim_between(rng, 3 * SEC_MS, 20 * SEC_MS);
	if (domain->behaviour == FULL)
		domain->delay_ms = sim_between(rng, HOUR_MS, 8 * HOUR_MS);
	if (domain->behaviour == FLAPPING || domain->behaviour == DNS_FLAPPING)
		domain->period_ms = sim_log_uniform(rng, 2 * MIN_MS, 2 * HOUR_MS);
	if (domain->behaviour == OUT_OF_QUOTA || domain->behaviour == ACCOUNT_LOCKED)
		domain->period_ms = 4 * HOUR_MS;
	if (domain->behaviour == THROTTLE)
		domain->limit = 5 + (unsigned)rng_below(rng, 40);
	if (domain->behaviour == HALF_MX)
		spoil_hosts(domain, rng);
}

bool behave_at_connect(struct host *host, bool *silent)
{
	const struct domain *domain = host->domain;

	*silent = host->fault == HOST_SILENT || domain->behaviour == SILENT ||
		  (domain->behaviour == FLAPPING && !domain_is_up(domain) && domain->variant % 2 == 0);
	return *silent || host->fault == HOST_REFUSED || domain->behaviour == REFUSED ||
	       (domain->behaviour == FLAPPING && !domain_is_up(domain));
}

static struct rng *rng_of(struct peer *peer)
{
	return &peer->world->rng.rng;
}

static void reply(struct say *say, const char *text)
{
	snprintf(say->text, sizeof(say->text), "%s\r\n", text);
	say->takes = false;
}

static void reply_and_close(struct say *say, const char *text)
{
	reply(say, text);
	say->how = SAY_AND_CLOSE;
}

/* ---- greylists ---- */

/* Without the part behind "+", which is another for each message. */
static uint64_t hash_person(uint64_t hash, const char *address)
{
	bool is_detail = false;

	for (const char *c = address; *c; c++) {
		is_detail = *c == '+' || (is_detail && *c != '@');
		if (!is_detail)
			hash = sim_hash(hash, (unsigned char)*c);
	}
	return hash;
}

static struct triplet *find_triplet(struct domain *domain, uint64_t key)
{
	struct triplet *triplet;

	HASH_FIND(hh, domain->triplets, &key, sizeof(key), triplet);
	if (!triplet) {
		triplet = xcalloc(1, sizeof(*triplet));
		triplet->key = key;
		triplet->first_ms = -1;
		HASH_ADD(hh, domain->triplets, key, sizeof(key), triplet);
	}
	return triplet;
}

/* How long it still has to wait; 0: it may pass. */
static int64_t wait_of(struct peer *peer, struct triplet *triplet)
{
	struct domain *domain = peer->host->domain;
	int64_t now = peer->world->clock->mono;

	if (triplet->first_ms < 0)
		triplet->first_ms = now;
	return MAX(triplet->first_ms + domain->delay_ms - now, 0);
}

/* After a first refusal, and before anything has been learnt, the next visit is in 5:10, or when the hint says, and
 * some seconds. */
static void expect_return(struct peer *peer, const char *address, int64_t from_ms, int64_t until_ms)
{
	struct truth_rcpt *rcpt = ledger_find_rcpt(peer->world->ledger, slice_of_str(address));
	struct domain *domain = peer->host->domain;
	int64_t now = peer->world->clock->mono;

	domain->greylisted++;
	if (!rcpt || rcpt->attempts > 0 || !peer->world->checks_returns || peer->is_orphan || domain->has_let_through)
		return;
	rcpt->come_from_ms = now + from_ms;
	rcpt->come_until_ms = now + until_ms + 30 * SEC_MS;
}

/* Of those that wait there one comes each ten seconds, and some may be let in before it. */
void behave_at_return(const struct domain *domain, struct truth_rcpt *rcpt)
{
	if (rcpt->come_until_ms > 0)
		rcpt->come_until_ms += (int64_t)domain->greylisted * 10 * SEC_MS;
}

static void greylist_rcpt(struct peer *peer, const char *address, struct say *say)
{
	struct domain *domain = peer->host->domain;
	struct triplet *triplet = find_triplet(domain, hash_person(hash_person(1, peer->sender), address));
	int64_t wait = wait_of(peer, triplet);
	static const char *const texts[] = {
	    "450 4.2.0 <them>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/",
	    "451 4.7.1 Greylisting in action, please come back later",
	    "451 Temporary failure, please try again later.",
	};

	if (wait == 0) {
		domain->has_let_through = true;
		return;
	}
	if (domain->behaviour == GREYLIST_HINT) {
		int64_t sec = (wait + 999) / 1000;
		say->takes = false;
		if (domain->variant % 2)
			snprintf(say->text, sizeof(say->text),
				 "451 4.7.1 Greylisting in action, please come back in %02d:%02d:%02d\r\n",
				 (int)(sec / 3600), (int)(sec / 60 % 60), (int)(sec % 60));
		else
			snprintf(say->text, sizeof(say->text),
				 "450 4.7.1 Greylisted, please try again in %d seconds\r\n", (int)sec);
		expect_return(peer, address, MAX(sec, 30) * 1000 + 5 * SEC_MS, MAX(sec, 30) * 1000 + 15 * SEC_MS);
		return;
	}
	reply(say, texts[domain->variant % ARRAY_LEN(texts)]);
	expect_return(peer, address, 310 * SEC_MS, 325 * SEC_MS);
}

/* One sum over sender and all recipients, as rspamd has it. */
static void greylist_content(struct peer *peer, struct say *say)
{
	uint64_t key = hash_person(1, peer->sender), all = 0;

	for (unsigned i = 0; i < peer->rcpt_count; i++)
		all += hash_person(2, peer->rcpts[i]);
	if (wait_of(peer, find_triplet(peer->host->domain, key ^ all)) == 0) {
		peer->host->domain->has_let_through = true;
		return;
	}
	reply(say, "451 4.7.1 Try again later");
	for (unsigned i = 0; i < peer->rcpt_count; i++)
		expect_return(peer, peer->rcpts[i], 310 * SEC_MS, 325 * SEC_MS);
}

/* ---- the others ---- */

static bool is_over_rate(struct peer *peer)
{
	struct domain *domain = peer->host->domain;
	int64_t now = peer->world->clock->mono;

	if (now - domain->window_ms >= 10 * MIN_MS) {
		domain->window_ms = now;
		domain->in_window = 0;
	}
	return domain->in_window >= domain->limit;
}

static void throttle(struct peer *peer, enum stage stage, struct say *say)
{
	unsigned variant = peer->host->domain->variant % 4;

	if (stage == AT_DOT)
		peer->host->domain->in_window++;
	if (!is_over_rate(peer) || stage == AT_DOT)
		return;
	if (variant == 0 && stage == AT_GREETING)
		reply_and_close(say, "421 4.7.0 [TSS04] Messages temporarily deferred due to unexpected volume");
	else if (variant == 1 && stage == AT_MAIL)
		reply(say, "450 4.7.1 Error: too much mail, rate limit exceeded");
	else if (variant == 2 && stage == AT_RCPT)
		reply(say, "450 4.2.1 The user you are trying to contact is receiving email too quickly");
	else if (variant == 3 && stage == AT_MAIL)
		reply_and_close(say, "421 4.7.28 Our system has detected an unusual rate of mail, try in 10 minutes");
}

static void take_and_drop(struct peer *peer, enum stage stage, struct say *say)
{
	if (stage != AT_DOT || !sim_chance(rng_of(peer), peer->host->domain->percent))
		return;
	switch (rng_below(rng_of(peer), 3)) {
	case 0: say->takes = false; /* fall through */
	case 1: say->how = CLOSE; break;
	default: snprintf(say->text, sizeof(say->text), "250 2.0"); say->how = SAY_AND_CLOSE;
	}
}

/* Percent of a session, not of each command. */
static bool strikes(struct peer *peer)
{
	return sim_chance(rng_of(peer), MAX(peer->host->domain->percent / 4, 2u));
}

static void be_flaky(struct peer *peer, enum stage stage, struct say *say)
{
	static const char *const texts[] = {
	    "451 4.3.0 Local error in processing", "450 4.2.0 Mailbox busy", "452 4.3.1 Insufficient system storage",
	    "421 4.3.2 Service shutting down",	   "454 4.7.0 Not now",	     "499 What is this",
	};
	const char *text = texts[rng_below(rng_of(peer), ARRAY_LEN(texts))];

	if (stage == AT_QUIT || stage == AT_RSET || !strikes(peer))
		return;
	if (text[1] == '2')
		reply_and_close(say, text);
	else
		reply(say, text);
}

static void refuse(struct peer *peer, enum stage stage, struct say *say)
{
	static const char *const texts[] = {"550 5.7.1 Blocked by policy", "554 5.7.1 Message looks like spam",
					    "550 5.1.1 No such user here", "501 5.5.4 Syntax", "552 5.3.4 Too large"};

	if (stage != AT_QUIT && stage != AT_RSET && strikes(peer))
		reply(say, texts[rng_below(rng_of(peer), ARRAY_LEN(texts))]);
}

static void be_hostile(struct peer *peer, enum stage stage, struct say *say)
{
	static const char *const texts[] = {
	    "250 ok\r\n550 or not",
	    "250-one\r\n550 other",
	    "250",
	    "2",
	    "999 nine nine nine",
	    "354 go ahead",
	    "220 hello",
	    "\xff\xfe\x80\x00",
	    "250 \x1b[2J\xc3\x28",
	    "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n",
	    "250-more\r\n250-more",
	    "-250 ok",
	    "535 5.7.8 Authentication failed",
	    "550 5.7.1 Greylisted, come back in 99999999999 seconds",
	    "451 4.7.1 Greylisted, come back in 99999999999 seconds",
	};

	(void)stage;
	if (!strikes(peer))
		return;
	say->takes = false;
	switch (rng_below(rng_of(peer), 8)) {
	case 0: say->how = SILENCE; break;
	case 1: say->how = CLOSE; break;
	case 2: /* a reply without end */
		snprintf(say->text, sizeof(say->text), "250-this goes on\r\n");
		say->repeat = 20000;
		break;
	case 3: /* a line without end */
		snprintf(say->text, sizeof(say->text), "250 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
		say->repeat = 4000;
		say->tail = "\r\n";
		break;
	case 4: /* twice the reply */ say->repeat = 2; break;
	case 5: say->delay_ms = sim_between(rng_of(peer), MIN_MS, 20 * MIN_MS); break;
	default: reply(say, texts[rng_below(rng_of(peer), ARRAY_LEN(texts))]); break;
	}
}

static void refuse_account(struct peer *peer, enum stage stage, struct say *say)
{
	struct domain *domain = peer->host->domain;

	if (stage != AT_MAIL || domain_is_up(domain))
		return;
	domain->refused++;
	reply(say, domain->behaviour == OUT_OF_QUOTA ? "550 5.4.5 Daily user sending limit exceeded"
						     : "530 5.7.0 Authentication required");
}

static void behave_in_session(struct peer *peer, enum stage stage, struct say *say)
{
	struct domain *domain = peer->host->domain;

	switch (domain->behaviour) {
	case SESSION_LIMIT:
		if (stage == AT_MAIL && peer->mails > domain->limit)
			reply_and_close(say, "421 4.7.0 Too many messages in this session");
		break;
	case FEW_RCPTS:
		if (stage == AT_RCPT && peer->rcpt_count >= domain->limit)
			reply(say, "452 4.5.3 Too many recipients");
		break;
	case IDLE_CLOSER:
		/* Says 250, and is gone a moment later, perhaps just when the next message comes. */
		if (stage == AT_DOT && domain->variant % 2)
			say->how = SAY_AND_CLOSE;
		break;
	case BUSY:
		if (stage == AT_GREETING && domain->connections > domain->limit)
			reply_and_close(say, "421 4.7.0 Too many concurrent connections");
		break;
	case DROPPING:
		if (strikes(peer)) {
			say->how = CLOSE;
			say->takes = false;
		}
		break;
	case OLD:
		if (stage == AT_EHLO && domain->variant % 2)
			say->how = CLOSE;
		break;
	default: break;
	}
}

void behave(struct peer *peer, enum stage stage, const char *argument, struct say *say)
{
	struct domain *domain = peer->host->domain;
	bool stranger_is_refused = argument && (argument[0] == 'n' || argument[0] == 'f');

	if (stage == AT_GREETING && peer->host->fault == HOST_554)
		reply(say, "554 No SMTP service here");
	if (stage == AT_RCPT && stranger_is_refused && argument[0] == 'n')
		reply(say, "550 5.1.1 <them>: Recipient address rejected: User unknown");
	if (stage == AT_RCPT && argument[0] == 'f' && peer->world->clock->mono < domain->delay_ms * 3)
		reply(say, "452 4.2.2 The email account that you tried to reach is over quota");
	switch (domain->behaviour) {
	case GREYLIST:
	case GREYLIST_HINT:
		if (stage == AT_RCPT)
			greylist_rcpt(peer, argument, say);
		break;
	case GREYLIST_CONTENT:
		if (stage == AT_DOT)
			greylist_content(peer, say);
		break;
	case THROTTLE: throttle(peer, stage, say); break;
	case TARPIT: say->delay_ms += domain->delay_ms; break;
	case TAKES_AND_DROPS: take_and_drop(peer, stage, say); break;
	case FLAKY: be_flaky(peer, stage, say); break;
	case REFUSING: refuse(peer, stage, say); break;
	case HOSTILE: be_hostile(peer, stage, say); break;
	case OUT_OF_QUOTA:
	case ACCOUNT_LOCKED: refuse_account(peer, stage, say); break;
	default: behave_in_session(peer, stage, say); break;
	}
}
