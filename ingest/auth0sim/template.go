package auth0sim

import (
	"fmt"
	"strconv"
	"strings"
)

// A template is the text of one event type, cut into literals and slots once, so
// that rendering is appending. In its source a slot is written <name> or
// <name:arg> or <name:arg:arg>, and stands for text that needs no escaping.
type template []segment

type segment struct {
	literal string // comes before the slot
	slot    slot
	a, b    int
}

type slot uint8

const (
	slotNone slot = iota
	slotID
	slotDate
	slotMillis      // the event's time, ms since 1970
	slotMillisStart // the start of the flow that it ends
	slotElapsed
	slotIP
	slotUA
	slotRawUA
	slotMobile
	slotUserID
	slotUserName
	slotEmail
	slotIDPID
	slotClientID
	slotClientName
	slotConn
	slotConnID
	slotStrategy
	slotStrategyType
	slotTenant
	slotEnv
	slotHost
	slotAudience
	slotScope
	slotScopes // a: 1 = array as a rule, else text
	slotOrgID
	slotOrgName
	slotLogins
	slotMethod
	slotPath
	slotChannel
	slotStatus
	slotReason
	slotMessage
	slotErrorCode
	slotOAuthError
	slotOperation
	slotBucket
	slotGlobal
	slotSize
	slotUsage
	slotFamily
	slotCode
	slotExec
	slotHex // a: length
	slotB62 // a: length
	slotInt // a to b
)

func slotNames() map[string]slot {
	return map[string]slot{
		"id": slotID, "date": slotDate, "ms": slotMillis, "ms_start": slotMillisStart, "elapsed": slotElapsed,
		"ip": slotIP, "ua": slotUA, "raw_ua": slotRawUA, "mobile": slotMobile,
		"user_id": slotUserID, "user_name": slotUserName, "email": slotEmail, "idp_id": slotIDPID,
		"client_id": slotClientID, "client_name": slotClientName,
		"conn": slotConn, "conn_id": slotConnID, "strategy": slotStrategy, "strategy_type": slotStrategyType,
		"tenant": slotTenant, "env": slotEnv, "host": slotHost,
		"audience": slotAudience, "scope": slotScope, "scopes": slotScopes,
		"org_id": slotOrgID, "org_name": slotOrgName, "logins": slotLogins,
		"method": slotMethod, "path": slotPath, "channel": slotChannel,
		"status": slotStatus, "reason": slotReason, "message": slotMessage,
		"error_code": slotErrorCode, "oauth_error": slotOAuthError, "operation": slotOperation,
		"bucket": slotBucket, "global": slotGlobal, "size": slotSize, "usage": slotUsage,
		"family": slotFamily, "code": slotCode, "exec": slotExec,
		"hex": slotHex, "b62": slotB62, "int": slotInt,
	}
}

// compile cuts src into segments. A slot that does not exist is a mistake in the
// catalogue, hence the panic.
func compile(src string, names map[string]slot) template {
	var t template
	for {
		before, rest, ok := strings.Cut(src, "<")
		if !ok {
			return append(t, segment{literal: before})
		}
		inside, after, ok := strings.Cut(rest, ">")
		if !ok {
			panic("auth0sim: template without >: " + src)
		}
		parts := strings.Split(inside, ":")
		seg := segment{literal: before, slot: names[parts[0]]}
		if seg.slot == slotNone {
			panic(fmt.Sprintf("auth0sim: no slot %q in a template", inside))
		}
		if len(parts) > 1 {
			seg.a, _ = strconv.Atoi(parts[1])
		}
		if len(parts) > 2 {
			seg.b, _ = strconv.Atoi(parts[2])
		}
		t = append(t, seg)
		src = after
	}
}

const (
	hexDigits = "0123456789abcdef"
	b62Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
)

// render appends the event that the template makes of the scene.
func (t template) render(b []byte, s *scene) []byte {
	for i := range t {
		seg := &t[i]
		b = append(b, seg.literal...)
		switch seg.slot {
		case slotNone:
		case slotID:
			b = appendID(b, s.pos)
		case slotDate:
			b = appendDate(b, s.date)
		case slotMillis:
			b = strconv.AppendInt(b, s.date/1000, 10)
		case slotMillisStart:
			b = strconv.AppendInt(b, s.date/1000-int64(s.elapsed), 10)
		case slotElapsed:
			b = strconv.AppendInt(b, int64(s.elapsed), 10)
		case slotIP:
			b = append(b, s.ip...)
		case slotUA:
			b = append(b, s.agent.parsed...)
		case slotRawUA:
			b = append(b, s.agent.raw...)
		case slotMobile:
			b = strconv.AppendBool(b, s.agent.mobile)
		case slotUserID:
			b = append(b, s.user.id...)
		case slotUserName:
			b = append(b, s.user.name...)
		case slotEmail:
			b = append(b, s.user.email...)
		case slotIDPID:
			b = append(b, s.user.idp...)
		case slotClientID:
			b = append(b, s.client.id...)
		case slotClientName:
			b = append(b, s.client.name...)
		case slotConn:
			b = append(b, s.conn.name...)
		case slotConnID:
			b = append(b, s.conn.id...)
		case slotStrategy:
			b = append(b, s.conn.strategy...)
		case slotStrategyType:
			b = append(b, s.conn.kind...)
		case slotTenant:
			b = append(b, s.tenant.Name...)
		case slotEnv:
			b = append(b, "prod-eu-1"...)
		case slotHost:
			b = append(b, s.tenant.Domain...)
		case slotAudience:
			b = append(b, s.audience...)
		case slotScope:
			b = append(b, s.scope...)
		case slotScopes:
			if (seg.a == 1) != s.flip {
				b = append(b, '[', '"')
				for i := range len(s.scope) {
					if s.scope[i] == ' ' {
						b = append(b, '"', ',', '"')
					} else {
						b = append(b, s.scope[i])
					}
				}
				b = append(b, '"', ']')
			} else {
				b = append(b, '"')
				b = append(b, s.scope...)
				b = append(b, '"')
			}
		case slotOrgID:
			b = append(b, s.org.id...)
		case slotOrgName:
			b = append(b, s.org.name...)
		case slotLogins:
			b = strconv.AppendInt(b, int64(1+s.rng.n(400)), 10)
		case slotMethod:
			b = append(b, s.method...)
		case slotPath:
			b = append(b, s.path...)
		case slotChannel:
			b = append(b, s.channel...)
		case slotStatus:
			b = strconv.AppendInt(b, int64(s.status), 10)
		case slotReason:
			b = append(b, s.reason...)
		case slotMessage:
			b = append(b, s.message...)
		case slotErrorCode:
			b = append(b, s.errorCode...)
		case slotOAuthError:
			b = append(b, s.oauthError...)
		case slotOperation:
			b = append(b, s.operation...)
		case slotBucket:
			b = append(b, s.bucket...)
		case slotGlobal:
			b = strconv.AppendBool(b, s.global)
		case slotSize:
			b = strconv.AppendInt(b, int64(s.size), 10)
		case slotUsage:
			b = strconv.AppendInt(b, int64(s.usage), 10)
		case slotFamily:
			b = append(b, s.family...)
		case slotCode:
			b = s.rng.text(append(b, "**********"...), 6, b62Digits[:62])
		case slotExec:
			b = appendDigits(b, int(s.date/1_000_000%1_0000_0000), 8)
			b = s.rng.text(b, 56, hexDigits)
		case slotHex:
			b = s.rng.text(b, seg.a, hexDigits)
		case slotB62:
			b = s.rng.text(b, seg.a, b62Digits)
		case slotInt:
			b = strconv.AppendInt(b, int64(seg.a+s.rng.n(seg.b-seg.a+1)), 10)
		}
	}
	return b
}

// text appends n characters of the alphabet, which has 16 or at most 64.
func (r *rng) text(b []byte, n int, alphabet string) []byte {
	for n > 0 {
		v := r.next()
		for k := min(n, 10); k > 0; k-- {
			b = append(b, alphabet[int(v&63)%len(alphabet)])
			v >>= 6
			n--
		}
	}
	return b
}
