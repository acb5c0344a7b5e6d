{{- define "ottoscaler.selector" -}}
app: {{ .Values.name }}
{{- end }}

{{- define "ottoscaler.labels" -}}
app: {{ .Values.name }}
app.kubernetes.io/name: ottoscaler
app.kubernetes.io/instance: {{ .Values.name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "ottoscaler.metadata" -}}
name: {{ .Values.name }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "ottoscaler.labels" . | nindent 2 }}
{{- end }}

{{/* One setting's value as an environment variable: numbers without an exponent, lists and objects as JSON. */}}
{{- define "ottoscaler.value" -}}
{{- if or (kindIs "slice" .) (kindIs "map" .) -}}
{{ toJson . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{- define "ottoscaler.hasTLS" -}}
{{- if or .Values.grpc.tls.cert .Values.grpc.tls.existingSecret }}yes{{ end -}}
{{- end }}

{{- define "ottoscaler.hasTokens" -}}
{{- if or .Values.grpc.tokens .Values.grpc.existingTokens }}yes{{ end -}}
{{- end }}

{{- define "ottoscaler.hasPolicy" -}}
{{- if or .Values.policy .Values.existingPolicy }}yes{{ end -}}
{{- end }}

{{- define "ottoscaler.hasTemplates" -}}
{{- if or .Values.templates .Values.existingTemplates }}yes{{ end -}}
{{- end }}

{{/* What the environment says, as a YAML map: what follows from the other values, under what `settings` say. */}}
{{- define "ottoscaler.settings" -}}
{{- $settings := dict
  "INSTANCE_NAME" .Values.name
  "REDIS_HOST" .Values.redis.host
  "REDIS_PORT" .Values.redis.port
  "WORKER_SERVICE_ACCOUNT" (printf "%s-worker" .Values.name)
  "LOG_FORMAT" "json"
  "HTTP_PORT" 8080
  "GRPC_PORT" 9090
  "GRPC_INSECURE" .Values.grpc.insecure
  "DRAIN_SECONDS" 20
-}}
{{- if include "ottoscaler.hasTLS" . }}
{{- $_ := set $settings "GRPC_INSECURE" false }}
{{- $_ := set $settings "GRPC_TLS_CERT" "/etc/ottoscaler/tls/tls.crt" }}
{{- $_ := set $settings "GRPC_TLS_KEY" "/etc/ottoscaler/tls/tls.key" }}
{{- if or .Values.grpc.tls.clientCA .Values.grpc.tls.requireClientCertificate }}
{{- $_ := set $settings "GRPC_TLS_CLIENT_CA" "/etc/ottoscaler/tls/ca.crt" }}
{{- end }}
{{- end }}
{{- if include "ottoscaler.hasTokens" . }}
{{- $_ := set $settings "GRPC_TOKENS_FILE" "/etc/ottoscaler/tokens/tokens.yaml" }}
{{- end }}
{{- if include "ottoscaler.hasPolicy" . }}
{{- $_ := set $settings "POLICY_FILE" "/etc/ottoscaler/policy/policy.yaml" }}
{{- end }}
{{- if include "ottoscaler.hasTemplates" . }}
{{- $_ := set $settings "WORKER_TEMPLATE" "/etc/ottoscaler/templates" }}
{{- end }}
{{- range $name, $value := mergeOverwrite $settings (deepCopy .Values.settings) }}
{{ $name }}: {{ include "ottoscaler.value" $value | quote }}
{{- end }}
{{- end }}

{{- define "ottoscaler.workerNamespace" -}}
{{- (include "ottoscaler.settings" . | fromYaml).NAMESPACE | default .Release.Namespace -}}
{{- end }}

{{/* Changes whenever an object that somebody else keeps does; empty where the cluster is not asked (helm template). */}}
{{- define "ottoscaler.existing" -}}
{{- range list .Values.existingConfigMap .Values.existingPolicy .Values.existingTemplates }}
{{- if . }}{{ (lookup "v1" "ConfigMap" $.Release.Namespace .).data | toJson }}{{ end }}
{{- end }}
{{- range list (ternary .Values.existingSecret (.Values.existingSecret | default .Values.name) (not (empty .Values.secrets))) .Values.grpc.existingTokens .Values.grpc.tls.existingSecret }}
{{- if . }}{{ (lookup "v1" "Secret" $.Release.Namespace .).data | toJson }}{{ end }}
{{- end }}
{{- end }}

{{/* The ports of one rule. */}}
{{- define "ottoscaler.ports" -}}
{{- $protocols := .protocols | default (list "TCP") -}}
ports:
{{- range $port := .ports }}
{{- range $protocol := $protocols }}
  - {port: {{ $port }}, protocol: {{ $protocol }}}
{{- end }}
{{- end }}
{{- end }}
