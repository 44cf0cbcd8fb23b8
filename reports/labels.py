"""The one table of fields: what people read instead of column names and raw values.

Each column has a kind (money, share, count, instant, …), derived from its name or from its row's metric; a name in
English and in Chinese; and, if it holds codes, words for them. Machines get columns and values unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.ledger.amounts import NOTHING, amount, count, percent, percent_of_bp
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.rules import LABELS, REASON_LABELS
from coupon_ledger.ledger.words import Note, Speaker
from coupon_ledger.reports.text import Row, printable
from coupon_ledger.reports.view import view

if TYPE_CHECKING:
    from coupon_ledger.questions.metrics.definitions import Metric


_CHINESE: Final[Mapping[str, str]] = {
    "acquisition_minor": "拉新",
    "amount_minor": "金额",
    "arm": "分组",
    "attributed_roi": "归因ROI(非增量)",
    "assigned": "分配人数",
    "balance_p": "基线检验p",
    "below_cost": "低于成本行数",
    "begun_at": "开始",
    "booked_minor": "已登记成本",
    "budget_minor": "预算",
    "burned": "已用占比",
    "buyers": "购买人数",
    "campaign": "活动",
    "campaign_id": "活动",
    "cancelled_minor": "取消金额",
    "cases": "次数",
    "category": "品类",
    "chance": "显著性",
    "channel": "渠道",
    "chosen": "选定",
    "claimed": "已领取",
    "clawed_back_minor": "追回优惠",
    "closing_coupons": "期末(张)",
    "closing_minor": "期末面值",
    "cohort": "首单月份",
    "control": "对照组",
    "control_mean": "对照组均值",
    "cost_kind": "成本类型",
    "cost_minor": "成本",
    "coupon_discount_minor": "用券优惠",
    "coupon_margin_minor": "用券毛利",
    "coupon_order_share": "用券订单占比",
    "coupon_orders": "用券订单数",
    "coupons": "券数",
    "coupons_out": "未核销券数",
    "came": "回购人数",
    "came_again": "复购率",
    "could": "可观察人数",
    "credited_orders": "归因订单数",
    "currency": "币种",
    "customers": "客户数",
    "day": "日期",
    "days": "天数",
    "discount_minor": "优惠",
    "discount_share": "折扣占比",
    "effect": "人均增量",
    "error": "标准误",
    "exhausted_at": "预计耗尽",
    "expired": "已失效",
    "expired_coupons": "失效(张)",
    "expired_minor": "失效面值",
    "face_value_minor": "面值",
    "first_at": "首次",
    "flow_minor": "净流入",
    "full_price": "全价复购",
    "full_price_after": "券后全价单数",
    "full_price_rate": "全价复购率",
    "funder": "出资方",
    "goal": "目标",
    "got": "获券人数",
    "got_coupon": "获券人数",
    "gross_minor": "原价",
    "high": "上限",
    "high_minor": "上限",
    "in_use": "在用",
    "incremental_margin_minor": "增量毛利",
    "industry": "行业均值",
    "issued": "已发放",
    "issued_coupons": "发放(张)",
    "issued_minor": "发放面值",
    "kind": "类型",
    "label": "指标",
    "last_at": "最近",
    "lines_without_cost": "无成本行数",
    "liability_minor": "未核销面值",
    "line_discount_minor": "明细行折扣",
    "lost_minor": "损失金额",
    "low": "下限",
    "low_minor": "下限",
    "margin_minor": "毛利",
    "margin_rate": "毛利率",
    "mean": "均值",
    "median_recency_days": "距上次消费(中位天数)",
    "media_minor": "媒体",
    "method": "方法",
    "metric": "指标",
    "model": "归因模型",
    "months_later": "第几月",
    "name": "名称",
    "net_minor": "退款前实付",
    "net_sales_minor": "净销售额",
    "number": "数量",
    "odds_ratio": "优势比",
    "open": "未完结",
    "of_before": "较上一步",
    "opening_coupons": "期初(张)",
    "opening_minor": "期初面值",
    "operation_minor": "运营",
    "orders": "订单数",
    "orders_without_cost": "无成本订单",
    "owned": "已持有",
    "p": "显著性p",
    "p_corrected": "校正后p",
    "paid_minor": "实付",
    "part": "分群",
    "per_day_minor": "日均花费",
    "people": "人数",
    "planned_share": "计划占比",
    "point": "损失点",
    "projected_minor": "预测价值",
    "quantity": "数量",
    "reached": "达成率",
    "reason": "原因",
    "recency_days": "距上次消费(天)",
    "refunded_minor": "退款",
    "region": "地区",
    "relative_effect": "相对提升",
    "released_coupons": "解除(张)",
    "released_minor": "解除面值",
    "removal_effect": "移除效应",
    "repurchase_rate": "复购率",
    "result": "结果",
    "retention": "留存率",
    "returned": "已退回",
    "returned_coupons": "退回(张)",
    "returned_minor": "退回面值",
    "revoked_coupons": "作废(张)",
    "revoked_minor": "作废面值",
    "roi": "增量ROI",
    "roi_high": "ROI上限",
    "roi_low": "ROI下限",
    "roi_simultaneous_high": "ROI同时上限",
    "roi_simultaneous_low": "ROI同时下限",
    "rule": "规则",
    "sales_minor": "归因销售额",
    "sales_share": "销售占比",
    "scope": "范围",
    "segment": "客群",
    "share": "占比",
    "silhouette": "轮廓系数",
    "simultaneous_high": "同时上限",
    "simultaneous_low": "同时下限",
    "simple_roi": "简单ROI(非增量)",
    "smallest_lift": "最小可检测提升",
    "spent_minor": "已花费",
    "status": "状态",
    "step": "步骤",
    "store": "门店",
    "subsidy_minor": "补贴",
    "tier": "等级",
    "times": "倍数",
    "treated": "实验组",
    "treated_mean": "实验组均值",
    "use_rate": "核销率",
    "used": "已核销",
    "used_coupons": "核销(张)",
    "used_it": "用券人数",
    "used_share": "用券人数占比",
    "used_minor": "核销面值",
    "user_id": "用户",
    "users": "人数",
    "value": "数值",
    "violation": "违规",
    "violations": "违规数",
    "what": "说明",
    "without_cost": "无成本订单",
    "without_value": "无面值(张)",
    "closing_without_value": "期末无面值(张)",
    "alive": "活跃概率",
    "alpha": "显著性水平",
    "bucket": "时段",
    "cancelled_at": "取消时间",
    "cancelled_orders": "取消订单数",
    "caveat": "注意",
    "changed": "变化",
    "chinese": "中文名",
    "claim_channel": "领取渠道",
    "claim_from": "领取开始",
    "claim_until": "领取截止",
    "claimed_at": "领取时间",
    "closing": "期末",
    "control_share": "对照组占比",
    "correlation": "相关系数",
    "counted": "计法",
    "coupon_id": "券",
    "coupon_orders_without_cost": "无成本用券订单",
    "coupon_type": "券类型",
    "coupons_discount_minor": "券核销优惠",
    "order_says_minor": "订单所记券优惠",
    "created_at": "创建时间",
    "customer": "新老客",
    "data": "内容",
    "dimensions": "维度",
    "discounted_sales_share": "有折扣销售占比",
    "ended_at": "结束时间",
    "entered": "进入数",
    "event_id": "事件",
    "event": "事件",
    "account": "科目",
    "total": "合计",
    "events": "事件数",
    "feature": "因素",
    "first_net_minor": "首单净额",
    "fully_refunded_orders": "全额退款订单数",
    "gaps_silent": "静默间隔数",
    "goods_cost_minor": "商品成本",
    "grain": "粒度",
    "issue_channel": "发放渠道",
    "issued_at": "发放时间",
    "key": "对象",
    "keys": "对象数",
    "last_event_at": "最近事件",
    "last_hour_claims_per_minute": "近一小时每分钟领取",
    "last_paid_at": "最近支付",
    "lift_share": "目标提升",
    "line": "项目",
    "made_of": "组成",
    "mean_gap_days": "平均购买间隔(天)",
    "meaning": "含义",
    "mechanic": "活动形式",
    "min_spend_minor": "门槛",
    "named": "订单点名",
    "not_clawed_back_minor": "未追回优惠",
    "occurred_at": "发生时间",
    "ok": "结果",
    "on_order": "在订单上",
    "opening": "期初",
    "order_id": "订单",
    "orders_by_rate": "按比例成本订单",
    "owner": "持有人",
    "peak_at": "峰值时间",
    "peak_claims_per_minute": "峰值每分钟领取",
    "people_needed": "所需人数",
    "people_needed_cuped": "所需人数(CUPED)",
    "per_user_limit": "每人限领",
    "percent_off_bp": "折扣",
    "placed_at": "下单时间",
    "power": "检验功效",
    "refunded_above_order": "超额退款订单",
    "refunded_orders": "退款订单数",
    "released": "解除",
    "reserved_at": "锁定时间",
    "revoked": "作废",
    "rule_version": "规则版本",
    "sd": "标准差",
    "smallest_lift_cuped": "最小可检测提升(CUPED)",
    "smallest_lift_share": "最小可检测提升(占比)",
    "smallest_lift_share_cuped": "最小可检测提升(占比,CUPED)",
    "source": "来源",
    "sql": "SQL",
    "stands": "有效",
    "state": "状态",
    "statement": "等式",
    "tenure_days": "客龄(天)",
    "topic": "主题",
    "discount_before_minor": "原优惠",
    "discount_after_minor": "新优惠",
    "face_value_before_minor": "原面值",
    "face_value_after_minor": "新面值",
    "healed": "消除违规",
    "change": "变化",
    "transition": "状态变化",
    "treatments": "实验组数",
    "type": "类型",
    "unit": "单位",
    "used_at": "核销时间",
    "uses": "核销数",
    "valid_from": "生效",
    "valid_until": "到期",
    "view": "口径",
    "partition": "分区",
    "offset": "位点",
    "next_offset": "下一位点",
    "end": "结束",
    "start": "开始",
    "expiry": "到期",
    "over": "已结束",
    "recorded_at": "记录时间",
    "detail": "详情",
    "bytes": "字节",
    "discarded_by": "处理人",
    "discarded_because": "处理原因",
    "table": "表",
    "rows": "行数",
    "facts": "事实摘要",
    "full": "完整摘要",
    "lag": "滞后",
    "read": "已读",
    "applied": "已应用",
    "repeats": "重复",
    "conflicts": "冲突",
    "dead_letters": "死信",
    "setting": "设置",
    "from": "来自",
    "operator": "操作人",
    "why": "原因",
    "defined_at": "定义时间",
    "parameters": "参数",
    "credits": "归因方式",
    "stratum": "分层",
    "there_already": "已在组",
    "counterpart": "对方",
    "superseded": "被取代",
    "explained": "已解释",
    "provisional": "暂定",
    "standing": "可用性",
    "code": "券码",
    "hold_until": "锁定至",
    "ip": "IP",
    "device_id": "设备",
    "phone_prefix": "手机号段",
    "attributes": "属性",
    "visibility": "可见性",
    "applies_to": "适用范围",
    "exclusion_group": "互斥组",
    "priority": "优先级",
    "platform_or_store": "平台或门店",
    "stock_left": "剩余库存",
    "claim_rate": "领取率",
    "sku": "商品",
    "lines": "明细",
    "discounts": "优惠",
    "paid_at": "支付时间",
    "refunded_at": "退款时间",
    "before": "之前",
    "after": "之后",
    "srm_p": "样本比例检验p",
    "targeted": "目标人数",
    "others": "其余人数",
    "supported": "可匹配占比",
    "placebo_effect": "安慰剂效果",
    "placebo_low": "安慰剂下限",
    "placebo_high": "安慰剂上限",
    "placebo_p": "安慰剂p",
    "total_effect": "总效果",
    "total_low": "总效果下限",
    "total_high": "总效果上限",
    "evidence": "证据",
    "people_warned": "提示",
    "refused": "数据不足",
    "warnings": "注意",
    "booked": "登记成本",
    "without_sale_minor": "无销售优惠",
    "left_minor": "剩余",
    "roi_cuped": "ROI(CUPED)",
    "roi_cuped_low": "ROI下限(CUPED)",
    "roi_cuped_high": "ROI上限(CUPED)",
    "received": "获券数",
    "simple_roi_bp": "简单ROI(非增量)",
    "person": "人",
    "ids": "账号",
    "codes": "违规",
    "what_happened": "事件",
    "coupon_list": "券",
    "id_list": "账号",
    "linked_ids": "关联账号",
    "cause": "原因",
    "hour_of_day": "小时",
    "weekday": "星期",
    "coupon": "券",
    "order": "订单",
    "campaign_discount_minor": "活动优惠",
    "since": "开始",
    "until": "截止",
    "check": "检查",
    "offenders": "不符数",
    "checked": "检查内容",
    "doubt": "疑点",
    "coupon_net_sales_minor": "用券净销售额",
    "known_people": "已知人数",
    "target": "目标",
    "correction": "校正",
    "relative_low": "相对下限",
    "relative_high": "相对上限",
    "note": "备注",
    "before_orders": "此前订单数",
    "before_net_minor": "此前净销售额",
    "before_margin_minor": "此前毛利",
    "order_ids": "订单",
    "assigned_at": "分组时间",
    "touched_at": "触点时间",
    "sources": "来源",
    "rule_id": "规则ID",
    "first_acquired_at": "首次获得",
    "acquired_at": "获得时间",
    "touch": "触点",
    "at": "时间",
    "days_before": "提前天数",
    "outbox": "待写入",
    "data_clock": "数据时间",
    "commits": "提交数",
    "committed_at": "提交时间",
    "open_transaction": "未结事务",
    "dead_letters_open": "未处理死信",
    "formula": "公式",
    "found": "行数",
    "taken_at": "抵扣时间",
    "sold": "有效销售",
    "cost_by": "成本来源",
    "spent_at": "花费时间",
    "with_coupon": "用券",
    "schema": "模式",
    "version": "版本",
    "fields": "字段数",
    "header": "头信息",
    "level": "级别",
    "object": "对象",
    "finding": "结论",
    "remedy": "处理办法",
    "broken": "违规",
    "states": "各状态券数",
    "versions": "规则版本记录",
    "conservation": "守恒核对",
    "linked": "关联账号",
    "touches": "触达次数",
    "usable": "可用",
    "known": "有资料",
    "other_order_id": "所用订单",
    "cost_of_goods_minor": "商品成本",
    "coupon_ids": "订单所记的券",
    "action": "操作",
    "subject": "操作对象",
    "details": "详情",
    "funder_share_bp": "出资比例",
    "funded_by": "出资比例",
    "campaigns": "活动数",
    "record": "记录",
    "fault": "问题",
    "counted_minor": "计得金额",
    "stands_minor": "在账金额",
    "told": "报表数",
    "told_minor": "报表金额",
    "projection": "表",
    "kept_in": "表",
    "hash": "散列值",
    "text": "原文",
    "field": "字段",
    "difference": "差异",
    "log_from": "日志起点",
    "log_to": "日志终点",
    "log": "日志",
    "use_for": "适用问题",
    "defined": "定义时间",
    "half_life_days": "半衰期(天)",
    "look_back_days": "回溯期(天)",
    "first_share": "首次占比",
    "last_share": "末次占比",
    "worth": "价值",
    "draws": "抽样次数",
    "commit": "提交",
    "examples": "示例",
    "not_read": "未读",
    "orders_of_users": "订单数",
}

WORDS: Final[Mapping[str, str]] = (
    LABELS
    | REASON_LABELS
    | {
        "used_when_used": "重复核销",
        "used_when_revoked": "作废后核销",
        "used_when_expired": "过期后核销",
        "outside_validity": "有效期外核销",
        "wrong_user": "非本人核销",
        "wrong_order": "订单不符",
        "no_owner": "无持有人核销",
        "over_issue": "超发",
        "over_user_limit": "超个人限领",
        "over_person_limit": "超同一人限领",
        "below_min_after_refund": "退款后未达门槛",
        "discount_above_value": "优惠超面值",
        "paid_after_cancel": "取消后支付",
        "use_not_named": "订单未列用券",
        "outside_claim_window": "领取期外",
        "orphan_use": "核销无支付订单",
        "unrecorded_use": "订单用券无核销记录",
        "use_not_returned": "取消未退券",
        "below_min_spend": "未达门槛",
        "discount_mismatch": "优惠金额不符",
        "double_use": "重复核销",
        "use_after_revocation": "作废后核销",
        "use_outside_validity": "有效期外核销",
        "use_without_claim": "未领取核销",
        "use_without_issue": "未发放核销",
        "use_on_cancelled_order": "取消订单未退券",
        "use_without_paid_order": "无支付订单",
        "coupons": "券",
        "issued": "发放",
        "claimed": "领取",
        "used": "核销",
        "in_use": "在用",
        "expired": "失效",
        "returned": "退回",
        "opening": "期初",
        "revoked": "作废",
        "released": "解除",
        "closing": "期末",
        "view": "浏览",
        "coupon": "券",
        "cart": "加购",
        "ordered": "下单",
        "paid": "支付",
        "promotion": "促销",
        "match": "配券",
        "member": "会员",
        "shipping": "运费",
        "platform": "平台",
        "merchant": "商家",
        "brand": "品牌",
        "acquisition": "拉新",
        "media": "媒体",
        "operation": "运营",
        "subsidy": "补贴",
        "redeemed": "核销归因",
        "last": "末次触点",
        "first": "首次触点",
        "linear": "线性",
        "time_decay": "时间衰减",
        "position": "位置归因",
        "markov": "马尔可夫",
        "shapley": "沙普利值",
        "plain": "普通",
        "cuped": "CUPED降噪",
        "winsorised": "缩尾",
        "sequential": "序贯",
        "control": "对照组",
        "treatment": "实验组",
        "used_events": "核销次数",
        "claimed_events": "领取次数",
        "issued_events": "发放次数",
        "expired_events": "失效次数",
        "(no lines)": "（无明细）",
        "(none)": "（无触点）",
        "(unknown coupon)": "（未知券）",
        "champion": "冠军客户",
        "loyal": "忠诚客户",
        "potential": "潜力客户",
        "new": "新客户",
        "promising": "有希望客户",
        "attention": "需关注客户",
        "sleeping": "将沉睡客户",
        "at_risk": "流失风险客户",
        "cant_lose": "不可失去客户",
        "hibernating": "沉睡客户",
        "lost": "流失客户",
        "high_value": "高价值客户",
        "active": "活跃客户",
        "bargain_hunter": "羊毛型客户",
        "returning": "老客户",
        "cash": "现金券",
        "percent": "折扣券",
        "threshold": "满减券",
        "gift": "礼品券",
        "other": "其他",
        "none": "无",
        "flash_sale": "秒杀",
        "full_reduction": "满减",
        "group_buy": "拼团",
        "public": "公开",
        "private": "定向",
        "usable": "可用",
        "order_told_late": "订单迟到",
        "use_told_late": "核销迟到",
        "return_told_late": "退回迟到",
        "refund_told_late": "退款迟到",
        "cost_told_late": "成本迟到",
        "goods_cost_told_late": "商品成本迟到",
        "cancelled_late": "事后取消",
        "order_corrected": "订单更正",
        "use_corrected": "核销更正",
        "cost_corrected": "成本更正",
        "known_then": "当时已知",
        "known_now": "现在已知",
        "matched": "匹配对比",
        "historical": "历史对比",
        "choice": "类数选择",
        "cluster": "类",
        "difference": "差异",
        "click": "点击",
        "reminder": "提醒",
        "ad": "广告",
        "issue": "发放",
        "claim": "领取",
        "cross": "跨券",
        "conflicting_duplicate": "内容冲突的重复",
        "not_yet": "未生效",
        "not_there": "未出现",
        "ok": "通过",
        "FAILED": "不通过",
        "BROKEN": "不平",
        "now": "当前",
        "per minute": "每分钟",
        "all": "全部",
        "missing": "缺少",
        "superfluous": "多余",
        "ratio": "比率",
        "minor": "金额",
        "seconds": "秒",
        "minutes": "分钟",
        "users": "人数",
        "orders": "订单数",
        "events": "事件数",
        "event": "按事件",
        "cohort": "按批次",
        "dead_letters_replayed": "死信重放",
        "dead_letters_discarded": "死信弃置",
        "correction_applied": "更正写入",
        "rebuild_swapped": "重建替换",
        "rebuild_rolled_back": "重建回退",
        "segment_defined": "定义分群",
        "attribution_model_defined": "定义归因模型",
        "review_template_defined": "保存复盘模板",
        "differences_accepted": "接受重建差异",
    }
)
"""Chinese words for the codes in cells."""

_WRITTEN: Final[Mapping[str, str]] = {"cant_lose": "can't lose"}
"""English words for codes that need more than spaces for underscores."""

_IN_STATE: Final[Mapping[str, str]] = {
    "none": "未创建即{event}",
    "created": "未发放即{event}",
    "issued": "发放后{event}",
    "claimed": "领取后{event}",
    "reserved": "锁定期间{event}",
    "used": "核销后{event}",
    "expired": "失效后{event}",
    "revoked": "作废后{event}",
}
"""Chinese for an event that the coupon's state does not allow, by that state."""

_ENGLISH: Final[Mapping[str, str]] = {
    "came_again": "came again",
    "campaign_id": "campaign",
    "coupon_id": "coupon",
    "coupon_margin_minor": "margin of coupon orders",
    "coupon_net_sales_minor": "net sales with coupon",
    "discount_cost_minor": "coupon discount",
    "event_id": "event",
    "face_value_minor": "face value",
    "got": "got a coupon",
    "got_coupon": "got a coupon",
    "net_minor": "net sales before refunds",
    "of_before": "of the step before",
    "order_id": "order",
    "order_says_minor": "coupon discount by the order",
    "coupons_discount_minor": "coupon discount by the uses",
    "codes": "violations",
    "what_happened": "events",
    "coupon_list": "coupons",
    "id_list": "ids",
    "checked": "question",
    "orders_without_cost": "orders without goods cost",
    "p": "p",
    "percent_off_bp": "percent off",
    "simple_roi": "simple ROI (not incremental)",
    "attributed_roi": "attributed ROI (not incremental)",
    "roi": "ROI",
    "true_roi": "true ROI",
    "roi_high": "ROI high",
    "roi_low": "ROI low",
    "roi_simultaneous_high": "ROI simultaneous high",
    "roi_simultaneous_low": "ROI simultaneous low",
    "simple_roi_bp": "simple ROI (not incremental)",
    "user_id": "user",
    "used_it": "used it",
    "used_share": "share of them that used it",
    "coupon_orders_without_goods_cost": "coupon orders without goods cost",
}
"""English names that do not follow from the column's name."""

_CODES: Final = frozenset(
    "violation point step kind reason model method funder cost_kind arm state standing type coupon_type status before"
    " after mechanic visibility segment part label metric doubt cause line"
    " dimension customer scope view unit tier action fault ok result".split()
)
"""Columns that hold such codes."""

_WORDED: Final = frozenset("point step reason cost_kind standing mechanic segment part label cause line tier".split())
"""Columns that show codes as words in English too. The others show them as options and events spell them."""

_NAMES: Final = frozenset({"metric", "feature"})
"""Columns that hold names of metrics and of columns."""

SAY_NOTHING: Final = frozenset(
    "acquisition_minor media_minor operation_minor subsidy_minor orders_by_rate lines_without_cost orders_without_cost"
    " without_cost superseded explained provisional coupon_orders_without_goods_cost without_value open"
    " cancelled_minor".split()
)
"""Columns that tables for people leave out if all their values are zero."""

_OF_METRIC: Final = frozenset(
    "value goal result industry campaign control_mean treated_mean control treated effect low high mean error"
    " sd simultaneous_low simultaneous_high total_effect total_low total_high".split()
)
"""Columns that take their unit from the row's metric."""

_MEANS: Final = _OF_METRIC - {"value", "goal", "result", "industry", "campaign"}
"""Columns of means, which keep a decimal even if the value happens to be whole."""

_SHARES: Final = (
    "share", "_rate", "retention", "of_before", "reached", "came_again", "relative_effect", "relative_low",
    "relative_high", "share_cuped", "supported", "burned", "removal_effect", "error",
)  # fmt: skip

_FACTORS: Final = (
    "roi", "roi_low", "roi_high", "roi_bp", "roi_cuped_low", "roi_cuped_high", "roi_simultaneous_low",
    "roi_simultaneous_high", "roi_cuped", "times", "odds_ratio", "silhouette", "score",
)  # fmt: skip

_MONEY: Final = frozenset({"smallest_lift", "smallest_lift_cuped", "true_margin", "true_net_sales"})

_P: Final = ("p", "p_corrected")

_NUMBERS: Final = frozenset(
    "partition offset next_offset end port pid number months_later weekday hour_of_day version commit schema_id cluster"
    " generation".split()
)
"""Numbers that identify something: they have no thousands separators."""

_UNITS: Final = {"ratio": "share", "minor": "money", "seconds": "seconds", "minutes": "number"}

_TOTAL: Final = ("total", "合计")


@cache
def _metrics() -> Mapping[str, Metric]:
    """The metric definitions; loaded with the first table, not with every command."""
    from coupon_ledger.questions.metrics.definitions import METRICS

    return METRICS


def chinese(column: str) -> str:
    """The Chinese name (中文名) of the column or metric; empty if it has none."""
    return _CHINESE.get(column) or (_metrics()[column].chinese if column in _metrics() else "")


def english(column: str) -> str:
    """The column's name in English."""
    return _ENGLISH.get(column) or column.removesuffix("_minor").removesuffix("_bp").replace("_", " ")


def label(column: str) -> str:
    """The column's name in the reader's language. In a name with a space, the code behind the space says what the
    column is of."""
    column, _, of = column.partition(" ")
    if of:
        return f"{label(column)} {word(of)}"
    if column[:1] == "+":
        return column
    for suffix, (after_en, after_zh) in _SUFFIXES.items():
        if column.endswith(suffix) and column not in _CHINESE and column not in _metrics():
            base = column.removesuffix(suffix)
            return f"{chinese(base) or base}{after_zh}" if view().chinese else f"{english(base)}{after_en}"
    return chinese(column) or WORDS.get(column) or english(column) if view().chinese else english(column)


def label_of_metric(name: str) -> str:
    """The metric's name in the reader's language. The metric `net_minor` of experiments is after refunds, like the net
    sales of reports; the column `net_minor` is what an order says before refunds."""
    return label("net_sales_minor" if name == "net_minor" else name)


_SUFFIXES: Final = {
    "_target": (" target", "目标"),
    "_reached": (" reached", "达成率"),
    "_before": (" before", "上期"),
    "_change": (" change", "变化"),
}

_OF_TEXTS: Final = {"violations": "codes", "events": "what_happened", "coupons": "coupon_list", "ids": "id_list"}


def label_of_texts(column: str) -> str:
    """The name of a column of texts or lists, if a column of the same name holds numbers elsewhere."""
    return label(_OF_TEXTS.get(column, column))


def word(code: str) -> str:
    """The code in words of the reader's language; unchanged if it has none."""
    if not view().chinese:
        return _WRITTEN.get(code, code.replace("_", " ")) if code in WORDS or _of_state(code) else code
    return WORDS.get(code) or _of_state(code) or code


def _of_state(code: str) -> str | None:
    """Chinese for a violation named after an event and the state before it, such as `extended_when_used`; None for
    other codes."""
    event, when, state = code.partition("_when_")
    if not when or event not in LABELS or state not in _IN_STATE:
        return None
    if event == state:
        return f"重复{WORDS[event]}"
    return _IN_STATE[state].format(event=WORDS[event])


def codes_in_words(codes: Sequence[str]) -> str:
    """Several codes in one cell: words in Chinese; in English the codes themselves, as options take them."""
    return "、".join(map(word, codes)) if view().chinese else ", ".join(codes)


def total_label() -> str:
    return _TOTAL[view().chinese]


def say(template: str, /, **values: Any) -> str:
    """Render a sentence in the reader's language; see `ledger.words`."""
    return told(Note(template, values))


def told(sentence: Note) -> str:
    """Render a note in the reader's language, with instants in the reader's zone."""
    how = view()
    return Speaker(how.lang, how.instant, word, label_of_metric).say(sentence)


def kind(column: str, row: Row) -> str:
    """The kind of the row's value in this column: money, share, bp, factor, p, seconds, count, number, name, instant,
    day, code, text."""
    value = row[column]
    if isinstance(value, datetime):
        return "instant"
    if isinstance(value, date):
        return "day"
    if isinstance(value, bool):
        return "text"
    if isinstance(value, int | float | Decimal):
        return _kind_of_number(column, row)
    if isinstance(value, str) and column in _NAMES:
        return "metric"
    return "code" if isinstance(value, str) and column in _CODES else "text"


def _kind_of_number(column: str, row: Row) -> str:
    whole = isinstance(row[column], int)
    column = column.partition(" ")[0]
    metric = row.get("metric")
    if column in _OF_METRIC and isinstance(metric, str):
        column = "share" if metric == "buyers" else metric
    for suffix in _SUFFIXES:
        base = column.removesuffix(suffix)
        if base != column and base in _metrics():
            if suffix in ("_reached", "_change"):
                return "share"
            column = base
    if column.endswith("_minor") or column in _MONEY:
        return "money"
    if column.endswith(_FACTORS):
        return "factor_bp" if column.endswith("_bp") else "factor"
    if column.endswith("_bp"):
        return "bp"
    if column in _metrics():
        return _UNITS.get(_metrics()[column].unit, "count")
    if column in _NUMBERS:
        return "name"
    if column in _P or column.endswith("_p"):
        return "p"
    if whole:
        return "count"
    return "share" if column.endswith(_SHARES) else "number"


def shown(column: str, row: Row, currency: str | None = None, bare: bool = False) -> str:
    """Format the row's value in this column for people. `currency`: used if the row names none; `bare`: amounts without
    their currency."""
    value = row[column]
    what = kind(column, row)
    if value is None:
        return NOTHING
    if what == "money":
        return _money(value, row.get("currency") or currency, bare)
    if what == "count" and isinstance(value, float) and value.is_integer() and column not in _MEANS:
        return count(int(value))
    if what == "metric":
        return label_of_metric(printable(str(value)))
    if what == "code":
        code = printable(str(value))
        return word(code) if view().chinese or column in _WORDED else code
    if isinstance(value, bool):
        return (("no", "yes"), ("否", "是"))[view().chinese][value]
    if isinstance(value, str) and value[:1] == "(":  # what has no name of its own
        return word(printable(value))
    text_of_it: str = _SHOWN[what](value)
    return text_of_it


def _money(value: float, currency: str | None, bare: bool) -> str:
    return amount(value, currency) if bare else told(Note("{value:money}", {"value": (value, currency)}))


def figure(name: str, value: Any, currency: str | None = None) -> str:
    """Format a single value for people; `name` is the name of its column."""
    return shown(name, {name: value}, currency)


def in_words(values: Row, currency: str | None = None) -> str:
    """Format fields side by side on one line."""
    return ("，" if view().chinese else ", ").join(
        f"{label(name)} {shown(name, values, currency)}" for name, value in values.items() if value is not None
    )


def _factor(value: float) -> str:
    return f"{value:,.2f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _number(value: float) -> str:
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


_LONG_SECONDS: Final = ((86_400, "d", "天"), (3_600, "h", "小时"), (60, "min", "分钟"))


def _seconds(value: float) -> str:
    for length, unit, zh in _LONG_SECONDS:
        if abs(value) >= 2 * length:
            return f"{value / length:,.1f} {zh if view().chinese else unit}"
    return f"{value:,.0f} {'秒' if view().chinese else 's'}"


def text(value: Any) -> str:
    """Format any value on one line: lists and objects as words, instants in the reader's zone."""
    if value is None:
        return NOTHING
    if isinstance(value, datetime):
        return view().instant(value)
    if isinstance(value, dict):
        return in_words(value) if value else NOTHING
    if isinstance(value, list | tuple):
        return ("、" if view().chinese else ", ").join(map(text, value)) if value else NOTHING
    if isinstance(value, float):
        return _number(value)
    return printable(str(plain(value)))


_SHOWN: Final[Mapping[str, Any]] = {
    "share": percent,
    "bp": percent_of_bp,
    "factor": _factor,
    "factor_bp": lambda basis_points: _factor(basis_points / 10_000),
    "p": _p,
    "seconds": _seconds,
    "count": lambda number: count(number) if isinstance(number, int) else f"{number:,.1f}",
    "number": _number,
    "name": str,
    "instant": text,
    "day": text,
    "text": text,
}
