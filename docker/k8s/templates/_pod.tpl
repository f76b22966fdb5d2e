{{/* Shared by every pod of Rankmill. Called with the root and the name of a part. */}}

{{- define "rankmill.labels" -}}
app.kubernetes.io/name: rankmill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "rankmill.image" -}}
{{ .root.Values.image.registry }}rankmill/{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "rankmill.pod" -}}
serviceAccountName: {{ .root.Release.Name }}
automountServiceAccountToken: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ range . }}[{name: {{ . }}}]{{ end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "rankmill.sealed" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "rankmill.container" -}}
image: {{ include "rankmill.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{ include "rankmill.sealed" . }}
{{- end }}

{{/* Changed settings start new pods. */}}
{{- define "rankmill.annotations" -}}
checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
{{- end }}

{{/* The Redis login of a role, from its own Secret. */}}
{{- define "rankmill.login" -}}
- name: REDIS_USERNAME
  valueFrom: {secretKeyRef: {name: {{ .root.Release.Name }}-login-{{ .role }}, key: username}}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .root.Release.Name }}-login-{{ .role }}, key: password}}
- name: RANKMILL_BROKER_URL
{{- if .root.Values.redis.enabled }}
  value: redis://$(REDIS_USERNAME):$(REDIS_PASSWORD)@{{ .root.Release.Name }}-redis:6379/0
{{- else }}
  value: {{ .root.Values.redis.url | replace "USERNAME" "$(REDIS_USERNAME)" | replace "PASSWORD" "$(REDIS_PASSWORD)" | quote }}
{{- end }}
{{- with .root.Values.redis.sentinel }}
{{- if .master }}
- {name: RANKMILL_BROKER_MASTER, value: {{ .master | quote }}}
- {name: RANKMILL_BROKER_TLS, value: {{ .tls | quote }}}
{{- with .user }}
- {name: RANKMILL_BROKER_SENTINEL_USER, value: {{ . | quote }}}
{{- end }}
{{- with .passwordSecret }}
- name: RANKMILL_BROKER_SENTINEL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}
{{- end }}
{{- end }}
{{- end }}
{{- if .root.Values.redis.caSecret }}
- {name: RANKMILL_BROKER_CA, value: /etc/redis-ca/ca.crt}
{{- end }}
{{- end }}

{{- define "rankmill.settings" -}}
- configMapRef: {name: {{ .root.Release.Name }}}
{{- range .root.Values.settingsFromSecrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "rankmill.tmp" -}}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.redis.caSecret }}
- {name: redis-ca, mountPath: /etc/redis-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "rankmill.tmpVolume" -}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 256Mi}
{{- if .root.Values.redis.caSecret }}
- name: redis-ca
  secret: {secretName: {{ .root.Values.redis.caSecret }}}
{{- end }}
{{- end }}

{{/* Volumes of a pod that works on jobs; called with the size of its scratch. */}}
{{- define "rankmill.mounts" -}}
{{ include "rankmill.tmp" . }}
- {name: scratch, mountPath: /scratch}
- {name: models, mountPath: /models, readOnly: true}
{{- if .root.Values.data.claim }}
- {name: data, mountPath: /data}
{{- end }}
{{- end }}

{{- define "rankmill.volumes" -}}
{{ include "rankmill.tmpVolume" . }}
- name: scratch
  emptyDir: {sizeLimit: {{ .scratch }}}
- name: models
  persistentVolumeClaim: {claimName: {{ include "rankmill.modelsClaim" . }}, readOnly: true}
{{- with .root.Values.data.claim }}
- name: data
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- end }}

{{- define "rankmill.modelsClaim" -}}
{{ .root.Values.models.claim | default (print .root.Release.Name "-models") }}
{{- end }}

{{/* A worker needs up to 150 s to start. Loading a model is progress, and healthy. */}}
{{- define "rankmill.workerProbes" -}}
startupProbe:
  exec: {command: [python, -m, worker.health]}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 30
livenessProbe:
  exec: {command: [python, -m, worker.health]}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
readinessProbe:
  exec: {command: [python, -m, worker.health]}
  periodSeconds: 30
  timeoutSeconds: 10
{{- end }}

{{- define "rankmill.httpProbes" -}}
startupProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 30
livenessProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 30
  timeoutSeconds: 10
{{- end }}

{{/* The queue of a kind of workers, as rankmill/broker.py names it. */}}
{{- define "rankmill.queue" -}}
rankmill.score{{ with .model }}.{{ regexReplaceAll "[^A-Za-z0-9_.-]+" . "-" | trimAll "-" }}{{ end }}
{{- end }}
