package auth0sim

import (
	"fmt"
	"strconv"
	"strings"
)

// template is the text of one event type, cut into literals and slots once, so that
// rendering only appends. In its source a slot is written <name>, <name:arg> or
// <name:arg:arg>. Its text needs no escaping.
type template []segment

type segment struct {
	literal string // before the slot
	slot    slot
	a, b    int
}

type slot uint8

const (
	slotNone slot = iota
	slotID
	slotDate
	slotMillis      // time of the event, ms since 1970
	slotMillisStart // start of the flow that it ends
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
	slotScopes // a: 1 = usually an array, otherwise text
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

// compile cuts src into segments. It panics on an unknown slot, which is a mistake in
// the catalog.
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

		// The arguments are numbers.
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

// render appends the event of a scene.
func (t template) render(b []byte, s *scene) []byte {
	for i := range t {
		seg := &t[i]
		b = append(b, seg.literal...)
		if seg.slot < slotIP {
			b = s.appendTime(b, seg.slot)
		} else if text, ok := s.text(seg.slot); ok {
			b = append(b, text...)
		} else {
			b = s.appendValue(b, seg)
		}
	}
	return b
}

// appendTime appends the slots of the event's id and times.
func (s *scene) appendTime(b []byte, slot slot) []byte {
	switch slot {
	case slotID:
		return appendID(b, s.pos)
	case slotDate:
		return appendDate(b, s.date)
	case slotMillis:
		return strconv.AppendInt(b, s.date/1000, 10)
	case slotMillisStart:
		return strconv.AppendInt(b, s.date/1000-int64(s.elapsed), 10)
	case slotElapsed:
		return strconv.AppendInt(b, int64(s.elapsed), 10)
	}
	return b
}

// text returns the text of a slot that is one.
func (s *scene) text(slot slot) (text string, ok bool) {
	switch slot {
	case slotIP:
		return s.ip, true
	case slotUA:
		return s.agent.parsed, true
	case slotRawUA:
		return s.agent.raw, true
	case slotUserID:
		return s.user.id, true
	case slotUserName:
		return s.user.name, true
	case slotEmail:
		return s.user.email, true
	case slotIDPID:
		return s.user.idp, true
	case slotClientID:
		return s.client.id, true
	case slotClientName:
		return s.client.name, true
	case slotConn:
		return s.conn.name, true
	case slotConnID:
		return s.conn.id, true
	case slotStrategy:
		return s.conn.strategy, true
	case slotStrategyType:
		return s.conn.kind, true
	case slotTenant:
		return s.tenant.Name, true
	case slotEnv:
		return "prod-eu-1", true
	case slotHost:
		return s.tenant.Domain, true
	case slotAudience:
		return s.audience, true
	case slotScope:
		return s.scope, true
	case slotOrgID:
		return s.org.id, true
	case slotOrgName:
		return s.org.name, true
	}
	return s.callText(slot)
}

// callText returns the text of a slot about a call.
func (s *scene) callText(slot slot) (text string, ok bool) {
	switch slot {
	case slotMethod:
		return s.method, true
	case slotPath:
		return s.path, true
	case slotChannel:
		return s.channel, true
	case slotReason:
		return s.reason, true
	case slotMessage:
		return s.message, true
	case slotErrorCode:
		return s.errorCode, true
	case slotOAuthError:
		return s.oauthError, true
	case slotOperation:
		return s.operation, true
	case slotBucket:
		return s.bucket, true
	case slotFamily:
		return s.family, true
	}
	return "", false
}

// appendValue appends the slots that are not text of the scene: numbers, booleans, the
// scopes, and random texts.
func (s *scene) appendValue(b []byte, seg *segment) []byte {
	switch seg.slot {
	case slotMobile:
		return strconv.AppendBool(b, s.agent.mobile)
	case slotScopes:
		return s.appendScopes(b, (seg.a == 1) != s.flip)
	case slotStatus:
		return strconv.AppendInt(b, int64(s.status), 10)
	case slotGlobal:
		return strconv.AppendBool(b, s.global)
	case slotSize:
		return strconv.AppendInt(b, int64(s.size), 10)
	case slotUsage:
		return strconv.AppendInt(b, int64(s.usage), 10)

	// The following draw from the event's random numbers.
	case slotLogins:
		return strconv.AppendInt(b, int64(1+s.rng.n(400)), 10)
	case slotCode:
		return s.rng.text(append(b, "**********"...), 6, b62Digits[:62])
	case slotExec:
		b = appendDigits(b, int(s.date/1_000_000%1_0000_0000), 8)
		return s.rng.text(b, 56, hexDigits)
	case slotHex:
		return s.rng.text(b, seg.a, hexDigits)
	case slotB62:
		return s.rng.text(b, seg.a, b62Digits)
	case slotInt:
		return strconv.AppendInt(b, int64(seg.a+s.rng.n(seg.b-seg.a+1)), 10)
	}
	return b
}

// appendScopes appends the scopes as an array or as one text.
func (s *scene) appendScopes(b []byte, array bool) []byte {
	if !array {
		b = append(b, '"')
		b = append(b, s.scope...)
		return append(b, '"')
	}

	b = append(b, '[', '"')
	for i := range len(s.scope) {
		if s.scope[i] == ' ' {
			b = append(b, '"', ',', '"')
		} else {
			b = append(b, s.scope[i])
		}
	}
	return append(b, '"', ']')
}

// text appends n characters of an alphabet of at most 64.
func (r *rng) text(b []byte, n int, alphabet string) []byte {
	for n > 0 {
		// Six bits for each character, so ten characters for each draw.
		draw := r.next()
		for k := min(n, 10); k > 0; k-- {
			b = append(b, alphabet[int(draw&63)%len(alphabet)])
			draw >>= 6
			n--
		}
	}
	return b
}
